"""SimpleNet in a run: the last step, and the best meta-epoch on test next to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from tabzoo.benchmark import measure
from tabzoo.benchmark.options import Options
from tabzoo.benchmark.run import run
from tabzoo.benchmark.table import to_csv, to_markdown
from tabzoo.data.toy import make_toy_factory
from tabzoo.errors import InputError
from tabzoo.scores.rows import Row, read_rows

pytestmark = pytest.mark.usefixtures("sketches")
MakeOptions = Callable[..., Options]


@pytest.fixture
def options(options: MakeOptions) -> MakeOptions:
    settings = {"simplenet": {"meta_epochs": 2, "gan_epochs": 1, "hidden": 32}}
    own = {"method": ["simplenet"], "resize": 64, "crop": 64, "classes": ["capsule"], "settings": settings}
    return lambda **changes: options(**(own | changes))


def test_defects_of_the_toy_factory_are_found(options: MakeOptions, tmp_path: Path) -> None:
    """Untrained features tell textures' defects apart, which an untrained discriminator does not."""
    data = make_toy_factory(
        *(tmp_path / "toy",),
        **{"seed": 3, "size": 64, "train": 16, "test_good": 8, "test_defect": 12, "classes": ("wood_grain",)},  # type: ignore[arg-type]
    )
    found = []
    for steps in (1, 140):
        settings = {"simplenet": {"steps": steps, "batch_size": 2, "hidden": 64}}
        chosen = options(data=str(data), classes=None, seeds=[1], settings=settings, output=tmp_path / str(steps))
        run(chosen, progress=False)
        (row,) = read_rows(tmp_path / str(steps))
        found.append((row.image_auroc, row.pixel_auroc))
    assert max(found[0]) < 0.85  # type: ignore[type-var]
    assert min(found[1]) > 0.9  # type: ignore[type-var]


def test_the_oracle_is_beside_the_last_step(
    options: MakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the best after any meta-epoch, and nothing else of the row is chosen so."""
    on_the_way: list[tuple[Tensor, Tensor]] = []

    def made_up(*given: Tensor) -> float:
        on_the_way.append(given)  # type: ignore[arg-type]
        return (0.25, 0.75, 0.5)[len(on_the_way) - 1]

    monkeypatch.setattr(measure, "image_auroc", made_up)
    out = tmp_path / "out"
    settings = {"simplenet": {"meta_epochs": 3, "gan_epochs": 1, "hidden": 32}}
    table = run(options(settings=settings), progress=False)
    assert "oracle" not in table
    (last,) = read_rows(out)
    assert last.oracle_image_auroc is None
    assert on_the_way == []
    table = run(options(settings=settings, oracle=True), progress=False)  # the row is measured again, and replaced
    (row,) = read_rows(out)
    assert row.oracle_image_auroc == 0.75
    (first, labels), _, (scores, _) = on_the_way
    for kind, label in (("good", False), ("anomalous", True)):
        assert row.scores[kind] == pytest.approx(scores[labels == label].tolist())
        assert row.scores[kind] != pytest.approx(first[labels == label].tolist())
    assert (row.key, row.scores, row.pixel_auroc) == (last.key, last.scores, last.pixel_auroc)
    assert "random:test_resnet oracle" in table
    assert "must not be compared" in table
    for chosen in (options(settings=settings, oracle=True), options(settings=settings)):  # and serves for both now
        assert run(chosen, progress=False) == table
    assert len((out / "results.jsonl").read_text().splitlines()) == 2


def test_the_oracle_in_tables(make_row: Callable[..., Row]) -> None:
    rows = [
        make_row("a", "nut", oracle_image_auroc=0.9876),
        *(make_row("a", "bolt"), make_row("b", "nut"), make_row("b", "bolt")),
    ]
    lines = [line for line in to_markdown(rows).splitlines() if line.startswith("|")]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[:5]}
    assert cells["class"] == ["a", "b", "b - a", "a oracle"]
    assert (cells["nut"][3], cells["bolt"][3], cells["average (2)"][3]) == ("98.8", "-", "-")
    assert all("oracle" not in line for line in lines[5:])
    assert "oracle_image_auroc,nut,a,0.9876" in to_csv(rows)
    assert "oracle" not in to_csv(rows[2:])


def test_methods_without_an_oracle(options: MakeOptions) -> None:
    with pytest.raises(InputError, match=r"--oracle: .*: simplenet; none of them is in --method padim rd4ad"):
        options(method=["padim", "rd4ad"], oracle=True)
    assert options(method=["padim", "simplenet"], oracle=True).with_oracle == {"simplenet"}
