"""Words and exit codes for rows of a start and of results."""

from pathlib import Path
from typing import Any

import pytest

from tabzoo.scores.compare import Comparison, compare
from tabzoo.scores.rows import Row
from tabzoo.trial.verdict import Verdict, judge, read_verdict


def judged(comparison: Comparison, **changes: Any) -> Verdict:
    given: dict[str, Any] = {
        "start": "resnet18.tv_in1k",
        "result": "runs/trial/runs/seed_0",
        "kind": None,
        "numbers": {},
    }
    return judge(comparison, **(given | {"untrained_texts": False, "change": 0.05} | changes))


def simulated(make_row: Any, start: float, result: float, *, runs: int = 2) -> Comparison:
    """Rows whose defects stand out that far: equal scores where equally far."""

    def rows(shift: float) -> list[Row]:
        return [make_row("a", name, seed, shift=shift) for name in ("nut", "bolt") for seed in (0, 1)]

    return compare(rows(start), [rows(result)] * runs)


@pytest.mark.parametrize(
    ("start", "result", "verdict", "code"),
    [(0.5, 2.5, "better", 0), (1.0, 1.0, "no difference", 10), (2.5, 0.5, "worse", 11)],
)
def test_exit_codes(make_row: Any, start: float, result: float, verdict: str, code: int) -> None:
    found = judged(simulated(make_row, start, result))
    assert (found.verdict, found.exit_code) == (verdict, code)
    assert found.use == ("runs/trial/runs/seed_0" if verdict == "better" else "resnet18.tv_in1k")


def comparison(difference: float, low: float, high: float, **changes: Any) -> Comparison:
    p_value = 0.5 if low <= 0 <= high else 0.01
    given = {"good": 100, "defective": 100, "classes": 3, "training_runs": 2} | changes
    return Comparison(difference=difference, low=low, high=high, p_value=p_value, **given)


def test_sentences() -> None:
    better = comparison(0.021, 0.004, 0.038)
    assert judged(better).sentence == (
        "Better: pre-training raised the image AUROC by 2.1 points (95 % interval 0.4 to 3.8) on 100 good and 100 defective "
        "photos of 3 classes, 2 training runs. Use runs/trial/runs/seed_0."
    )
    same = comparison(-0.0004, -0.012, 0.0112, classes=1, training_runs=1, good=1, defective=1)
    assert judged(same).sentence == (
        "No difference beyond chance: pre-training changed the image AUROC by 0.0 points (95 % interval -1.2 to +1.1) on 1 "
        "good and 1 defective photo of 1 class, one training run. Keep resnet18.tv_in1k."
    )
    worse = comparison(-0.021, -0.038, -0.004)
    assert judged(worse, kind="perlin").sentence == (
        "Worse: pre-training lowered the image AUROC by 2.1 points (95 % interval 0.4 to 3.8) on 100 good photos and 100 "
        "synthetic anomalies (perlin), which are a proxy for real defects, of 3 classes, 2 training runs. Keep "
        "resnet18.tv_in1k."
    )
    hardly = "Training hardly changed the weights (by 0.0012 %), so this says little about pre-training: to learn more, type "
    assert hardly in judged(same, change=1.2e-5).sentence
    assert hardly not in judged(worse, change=1.2e-5).sentence
    assert judged(better, untrained_texts=True).sentence.endswith(
        "The texts were not CLIP's but an untrained tower's, so this says nothing about pre-training with CLIP."
    )


def test_it_is_read_back(tmp_path: Path) -> None:
    assert read_verdict(tmp_path) is None
    written = judged(comparison(0.021, 0.004, 0.038), numbers={"test": "real"})
    written.write(tmp_path)
    assert read_verdict(tmp_path) == written
