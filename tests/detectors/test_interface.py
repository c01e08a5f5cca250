"""Settings of methods: the authors', the quick budget's, those that are given."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from tabzoo.detectors import DETECTORS, FewShotDetector, ImageBatches
from tabzoo.detectors.extractor import build_extractor
from tabzoo.errors import InputError


def test_given_settings_win_over_the_budget() -> None:
    spec = DETECTORS["rd4ad"]
    paper, quick = (spec.configure("rd4ad", budget=budget, given={}) for budget in ("paper", "quick"))
    assert (paper.epochs, paper.steps, paper.batch_size, paper.lr) == (200, None, 16, 0.005)
    assert quick.steps == spec.quick["steps"]
    given = spec.configure("rd4ad", budget="quick", given={"steps": 7, "lr": 0.1})
    assert (given.steps, given.lr, given.epochs) == (7, 0.1, 200)


@pytest.mark.parametrize("name", DETECTORS)
def test_quick_settings_are_settings(name: str) -> None:
    spec = DETECTORS[name]
    assert spec.configure(name, budget="quick", given={}) == spec.settings(**spec.quick)


def test_values_that_make_no_sense() -> None:
    for value in (0, -3):
        with pytest.raises(InputError, match=f"--rd4ad-batch-size {value}: expected at least 1"):
            DETECTORS["rd4ad"].configure("rd4ad", budget="paper", given={"batch_size": value})
    for value in (float("nan"), float("inf"), 1.5, 0.0):
        with pytest.raises(InputError, match=f"--patchcore-share {value}: expected more than 0, at most 1"):
            DETECTORS["patchcore"].configure("patchcore", budget="paper", given={"share": value})
    for name in ("patchcore", "simplenet"):
        with pytest.raises(InputError, match=f"--{name}-width 999999999: expected at least 1, at most 16384"):
            DETECTORS[name].configure(name, budget="paper", given={"width": 999_999_999})
    with pytest.raises(InputError, match="--rd4ad-lr inf: expected at least 0, and finite"):
        DETECTORS["rd4ad"].configure("rd4ad", budget="paper", given={"lr": float("inf")})


SHORT: dict[str, dict[str, object]] = {
    "padim": {},
    "patchcore": {"share": 0.3},
    "rd4ad": {"epochs": 2, "batch_size": 2},
    "simplenet": {"meta_epochs": 2, "gan_epochs": 1, "batch_size": 2, "hidden": 8},
    "regad": {"epochs": 2, "batch_size": 2, "lr": 0.1},
}
"""Settings of a training of seconds."""
OTHERS: dict[str, dict[str, object]] = {
    "padim": {"channels": 7, "regularisation": 0.1},
    "patchcore": {"share": 0.1, "neighbours": 3, "width": 64},
    "rd4ad": {"epochs": 1, "steps": 1, "batch_size": 3, "lr": 0.01},
    "simplenet": {
        **{"meta_epochs": 1, "gan_epochs": 2, "steps": 1, "batch_size": 3, "noise": 0.1, "margin": 2.0},
        **{"adaptor_lr": 0.1, "discriminator_lr": 0.1, "width": 16, "hidden": 16},
    },
    "regad": {"epochs": 1, "steps": 1, "batch_size": 3, "lr": 0.2, "regularisation": 0.1},
}
"""Another value of every setting; how many draws there are is the run's matter."""


@pytest.mark.parametrize("name", DETECTORS)
def test_every_setting_changes_the_numbers(name: str, batches: Callable[..., ImageBatches]) -> None:
    assert {field.name for field in dataclasses.fields(DETECTORS[name].settings)} == OTHERS[name].keys() | (
        {"draws"} if name == "regad" else set()
    )
    backbone = "random:resnet10t" if name == "rd4ad" else "random:test_resnet"
    extractor = build_extractor(backbone, layers=DETECTORS[name].layers)
    side = max(48, DETECTORS[name].multiple * 2)
    images = torch.rand(12, 3, side, side, generator=torch.Generator().manual_seed(0))
    maps = []
    for change in ({}, *({setting: value} for setting, value in OTHERS[name].items())):
        method = DETECTORS[name].build(extractor, 0, DETECTORS[name].settings(**SHORT[name] | change))
        if isinstance(method, FewShotDetector):
            method.meta_train([batches([images[:5]]), batches([images[5:7]])], 2)
        method.fit(batches([images[7:10]]))
        scores = method.score(images[10:])
        maps.append(torch.cat([scores.anomaly_maps.flatten(), scores.image_scores]))
    same = [setting for setting, other in zip(OTHERS[name], maps[1:], strict=True) if torch.equal(other, maps[0])]
    assert same == []
