"""Settings of methods: the authors', the quick budget's, those that are given."""

import pytest

from tabzoo.benchmark.methods import METHODS
from tabzoo.errors import InputError


def test_given_settings_win_over_the_budget() -> None:
    spec = METHODS["rd4ad"]
    paper, quick = (spec.configure("rd4ad", budget=budget, given={}) for budget in ("paper", "quick"))
    assert (paper.epochs, paper.steps, paper.batch_size, paper.lr) == (200, None, 16, 0.005)
    assert quick.steps == spec.quick["steps"]
    given = spec.configure("rd4ad", budget="quick", given={"steps": 7, "lr": 0.1})
    assert (given.steps, given.lr, given.epochs) == (7, 0.1, 200)


@pytest.mark.parametrize("name", METHODS)
def test_quick_settings_are_settings(name: str) -> None:
    spec = METHODS[name]
    assert spec.configure(name, budget="quick", given={}) == spec.settings(**spec.quick)


def test_values_that_make_no_sense() -> None:
    for value in (0, -3):
        with pytest.raises(InputError, match=f"--rd4ad-batch-size {value}: expected at least 1"):
            METHODS["rd4ad"].configure("rd4ad", budget="paper", given={"batch_size": value})
    for value in (float("nan"), float("inf"), 1.5):
        with pytest.raises(InputError, match=f"--patchcore-share {value}: expected 0 to 1"):
            METHODS["patchcore"].configure("patchcore", budget="paper", given={"share": value})
    with pytest.raises(InputError, match="--rd4ad-lr inf: expected at least 0, and finite"):
        METHODS["rd4ad"].configure("rd4ad", budget="paper", given={"lr": float("inf")})
