"""The verdict: one sentence, an exit code, and verdict.json for scripts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabzoo.hub.files import write_json
from tabzoo.plain import for_terminal
from tabzoo.scores.compare import Comparison
from tabzoo.scores.words import interval_in_words, points, signed, tested_on
from tabzoo.trial.folder import VERDICT, damaged, read_part

__all__ = ["EXIT_CODES", "Verdict", "judge", "read_verdict"]

EXIT_CODES = {"better": 0, "no difference": 10, "worse": 11}
_HARDLY = 0.001
"""Relative change of the weights below which detectors can hardly tell start and result apart."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a trial says.

    Attributes:
        verdict: A key of `EXIT_CODES`.
        sentence: For people.
        use: The backbone to use: a name of timm, or a folder.
        numbers: The comparison that decided, and more for scripts.
    """

    verdict: str
    sentence: str
    use: str
    numbers: Mapping[str, Any]

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return EXIT_CODES[self.verdict]

    def write(self, folder: Path) -> None:
        """Writes verdict.json."""
        write_json(folder / VERDICT, {**asdict(self), "exit_code": self.exit_code})


def read_verdict(folder: Path) -> Verdict | None:
    """The verdict in a folder; None if the trial is not finished.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / VERDICT
    if not path.is_file():
        return None
    content = read_part(path)
    kinds = {"verdict": str, "sentence": str, "use": str, "numbers": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]
    if wrong or content["verdict"] not in EXIT_CODES:
        raise damaged(path, f"{[*wrong, 'verdict'][0]!r} is missing or wrong")
    return Verdict(**{name: content[name] for name in kinds})


def judge(
    comparison: Comparison,
    *,
    start: str,
    result: str,
    kind: str | None,
    untrained_texts: bool,
    change: float,
    numbers: Mapping[str, Any],
) -> Verdict:
    """Words for a comparison. It recommends the result only if it is better.

    Args:
        comparison: Of the results with the start.
        start: Name or folder of the start.
        result: Folder of the first training run; it was chosen before any was tested.
        kind: Kind of synthetic anomalies; None where the defects are real.
        untrained_texts: Whether the text tower had random weights.
        change: How far training moved the weights, relative to their length.
        numbers: More for scripts.
    """
    c, verdict = comparison, comparison.verdict
    use = result if verdict == "better" else start
    says = {
        "better": f"Better: pre-training raised the image AUROC by {points(c.difference)} points",
        "no difference": f"No difference beyond chance: pre-training changed the image AUROC by {signed(c.difference)} points",
        "worse": f"Worse: pre-training lowered the image AUROC by {points(-c.difference)} points",
    }
    runs = "one training run" if c.training_runs == 1 else f"{c.training_runs} training runs"
    advice = f"Use {for_terminal(use)}." if verdict == "better" else f"Keep {for_terminal(use)}."
    sentence = f"{says[verdict]} ({interval_in_words(c)}) on {tested_on(c, kind)}, {runs}. {advice}"
    if change < _HARDLY and verdict == "no difference":
        sentence += (
            f" Training hardly changed the weights (by {100 * change:.2g} %), so this says little about pre-training: to learn "
            f"more, type more --minutes, or a --recipe with a higher lr."
        )
    if untrained_texts:
        sentence += (
            " The texts were not CLIP's but an untrained tower's, so this says nothing about pre-training with CLIP."
        )
    return Verdict(verdict=verdict, sentence=sentence, use=use, numbers={**asdict(comparison), **numbers})
