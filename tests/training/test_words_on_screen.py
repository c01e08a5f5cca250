"""What a run says on the screen: accuracies with their meaning, losses with their steps, the quickstart's table in words."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tabzoo.progress import Progress
from tabzoo.scores.rows import Row
from tabzoo.training import pretrain, report
from tabzoo.training.report import explain_benchmark

Output = pytest.CaptureFixture[str]
Arguments = Callable[..., list[str]]


def test_the_time_of_all_steps_and_the_last_line_without_rows() -> None:
    """Of a step pass as many normal images as the batch has, and as many anomalies."""
    run: Any = SimpleNamespace(batch_size=16)
    rows = [{"step": 2, "images_per_second": 64.0}, {"step": 3, "images_per_second": 8.0}]
    assert report._seconds(run, rows) == 2 * 32 / 64 + 32 / 8
    assert report._seconds(run, []) == 0
    assert report._end(run, {}) == "At the end: metrics.jsonl has no row."


def test_accuracies_say_of_what_they_are(small: Arguments, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Progress, "tell", lambda self, note: notes.append(note))
    assert pretrain.main(small("--val-share", "0.2", "--log-every", "2", "--epochs", "3")) == 0
    assert notes
    assert all(", product accuracy 0." in note or ", product accuracy 1." in note for note in notes)
    assert all(note.split(", ")[-2].endswith(" abnormal") for note in notes)
    shown = capsys.readouterr().out
    assert " in steps 1 to 2, " in shown
    assert " in steps 5 to 6.\n" in shown
    assert "At the end (held out): loss " in shown
    assert (
        "chance is 0.333.\nThis accuracy says which product an image shows. It does not say how well real defects"
        in shown
    )


def test_a_single_row_is_not_printed_as_first_and_last_loss(small: Arguments, capsys: Output, tmp_path: Path) -> None:
    assert pretrain.main(small("--epochs", "1", "--log-every", "100", "--objective", "joint")) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("Loss ")]
    assert line.endswith(" in steps 1 to 3.")
    assert line.count(" in step") == 1
    assert "At the end: loss " in shown
    assert "accuracy of product and state" in shown
    assert "chance is 0.167.\nThis accuracy says which product an image shows, and whether it is normal." in shown
    more = small("--epochs", "2", "--batch-size", "48", "--output", str(tmp_path / "more"))
    assert pretrain.main(more) == 0
    shown = capsys.readouterr().out
    assert " in step 1, " in shown
    assert " in step 2.\n" in shown


def test_the_quickstarts_table_in_words(make_row: Callable[..., Row]) -> None:
    rows = [
        make_row(backbone, name, image_auroc=auroc)
        for backbone, aurocs in (("random", (0.7, 0.8)), ("quickstart", (0.6, 0.701)))
        for name, auroc in zip(("nut", "bolt"), aurocs, strict=True)
    ]
    words = explain_benchmark(rows, text_pretrained="untrained")
    assert "it is 75.0 % with random, 65.0 % with quickstart. No gain is expected here" in words.replace("65.1", "65.0")
    assert words.endswith("tabzoo data check DIR")
    assert "No gain is expected" not in explain_benchmark(rows, text_pretrained="laion400m_e32")
