"""MODEL_CARD.md and the cards of weights: the same headings, and numbers that are right."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small import rows

from tabzoo.hub.card import read_results
from tabzoo.hub.model_card import model_card
from tabzoo.hub.publish import pack
from tabzoo.scores.bootstrap import auroc_interval
from tabzoo.scores.rows import Row
from tabzoo.training import pretrain

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = [
    *("Details", "Uses", "Out of scope", "Data and licences", "Training", "Evaluation", "Limits"),
    *("Environmental cost", "How to reproduce"),
]


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_the_file_is_what_the_code_makes() -> None:
    text = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert text == model_card(), "type: python -m tabzoo.hub.model_card > MODEL_CARD.md"
    assert headings(text) == HEADINGS
    assert "cc-by-nc-sa-4.0: no commercial use" in text
    for link in re.findall(r"\]\(([^)]*)\)", text):
        assert (ROOT / link).exists()


def test_the_card_of_a_run_and_its_results(small: Callable[..., list[str]], tmp_path: Path) -> None:
    """Published, it has the results at the end of the evaluation."""
    assert pretrain.main(small("--val-share", "0.33", "--license", "apache-2.0")) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert headings(card) == HEADINGS
    assert "| product accuracy, synthetic anomalies (held out) | " in card
    assert re.search(r"About \d+ s for all steps on \S+;", card)
    assert (
        "- Trained on 33 normal images; synthetic anomalies were made from them. 15 more images were held out." in card
    )
    measured = rows(tmp_path / "results.jsonl", [{"backbone": "test_resnet.out"}])
    sent = pack(tmp_path / "out", "org/test_resnet.out", results=[measured]).files["README.md"].decode()
    assert headings(sent) == HEADINGS
    assert sent.index("## Evaluation") < sent.index("### Results") < sent.index("## Limits")
    assert sent.index("| interval |") < sent.index("## Limits")
    assert sent.endswith(").\n")


def test_a_card_of_an_older_version_gets_its_results_at_the_end(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(make_folder("test_resnet.tab_here"), tmp_path / "test_resnet.tab_here")
    sent = pack(folder, "org/test_resnet.tab_here", results=[rows(tmp_path / "results.jsonl", [{}])]).files["README.md"]
    assert sent.decode().rstrip().splitlines()[-1].startswith("| mvtec | padim |")


def test_the_interval_of_an_auroc(make_row: Callable[..., Row]) -> None:
    """Against resampling the scores themselves, one class with two seeds and one with one."""
    found = [make_row(class_name=name, seed=seed) for name, seed in (("nut", 0), ("nut", 1), ("bolt", 0))]
    rng = np.random.default_rng(5)
    means = []
    for _ in range(4000):
        by_class: dict[str, list[float]] = {"nut": [], "bolt": []}
        drawn = {name: (rng.integers(20, size=20), rng.integers(30, size=30)) for name in by_class}
        for row in found:
            good, bad = (
                np.array(row.scores[kind])[chosen]
                for kind, chosen in zip(("good", "anomalous"), drawn[row.class_name], strict=True)
            )
            by_class[row.class_name].append((bad[:, None] > good).mean())
        means.append(np.mean([np.mean(values) for values in by_class.values()]))
    interval = auroc_interval(found)
    assert interval == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=0.015)
    assert auroc_interval([]) is None
    assert auroc_interval([make_row(image_auroc=None)]) is None


def test_the_interval_is_of_the_seeds_of_the_mean(tmp_path: Path) -> None:
    """A seed that only one class has is in neither."""
    scores = {"good": [0.1, 0.2, 0.3], "anomalous": [0.15, 0.25, 0.4]}
    wrong = {"good": [1.0, 1.0, 1.0], "anomalous": [0.0, 0.0, 0.0]}
    values = [
        {"scores": scores, "image_auroc": 2 / 3},
        {"class": "nut", "scores": scores, "image_auroc": 2 / 3},
        {"seed": 1, "scores": wrong, "image_auroc": 0.0},
    ]
    (result,) = read_results([rows(tmp_path / "results.jsonl", values)], ["test_resnet.tab_here"])
    assert result.metrics["image_auroc"] == pytest.approx(100 * 2 / 3)
    assert result.interval is not None
    assert 20 < result.interval[0] < 100 * 2 / 3 < result.interval[1] <= 100
    assert [result] == read_results([rows(tmp_path / "seed0.jsonl", values[:2])], ["test_resnet.tab_here"])
