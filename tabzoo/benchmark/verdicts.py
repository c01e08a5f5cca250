"""A verdict in words for each backbone against the first one: better, worse, or no difference beyond chance."""

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tabzoo.errors import InputError, brief
from tabzoo.plain import for_terminal
from tabzoo.scores.compare import LEVEL, Comparison, compare, holm
from tabzoo.scores.rows import REAL, Row
from tabzoo.scores.words import interval_in_words, points, signed, tested_on

__all__ = ["Part", "Verdict", "compare_parts", "judge", "judge_tests", "verdicts_in_words"]


class Verdict(NamedTuple):
    """What the rows say about a backbone.

    Attributes:
        backbone: Its name.
        verdict: "better", "worse", "no difference", or "not compared".
        sentence: For people.
        comparison: With the baseline; None where they can't be compared.
    """

    backbone: str
    verdict: str
    sentence: str
    comparison: Comparison | None


class Part(NamedTuple):
    """A backbone against the baseline with one method on one data set.

    Attributes:
        backbone: Its name.
        rows: Rows of baseline and backbone, of which one tells what all have in common.
        comparison: None where the rows can't be compared.
        why_not: The reason then.
    """

    backbone: str
    rows: Sequence[Row]
    comparison: Comparison | None
    why_not: str


def judge_tests(rows: Sequence[Row], order: Sequence[str]) -> dict[str, list[Verdict]]:
    """For each kind of test a heading, and the verdicts on all that was measured with it; none without SciPy.

    Args:
        rows: As for `judge`, of any tests.
        order: Names of backbones to put first; the first one of all is the baseline.
    """
    if importlib.util.find_spec("scipy") is None:
        return {}
    names = dict.fromkeys(row.backbone for row in rows)
    baseline, *others = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    studies = {}
    for test in dict.fromkeys(row.test for row in rows):
        of_test = [row for row in rows if row.test == test]
        present = [name for name in others if any(row.backbone == name for row in of_test)]
        heading = "Verdict" if test == REAL else f"Verdict on synthetic anomalies ({test.partition(':')[2]}), a proxy"
        if verdicts := judge(of_test, baseline, present):
            studies[heading] = verdicts
    return studies


def verdicts_in_words(rows: Sequence[Row], order: Sequence[str]) -> str:
    """What `judge_tests` finds, as the end of the tables; empty if there is nothing to compare."""
    studies = judge_tests(rows, order).items() if rows else ()
    parts = [
        "\n".join([f"{heading}:", "", *(for_terminal(f"- {one.backbone}: {one.sentence}") for one in verdicts)])
        for heading, verdicts in studies
    ]
    return "\n\n".join(parts)


def judge(rows: Sequence[Row], baseline: str, others: Sequence[str]) -> list[Verdict]:
    """A verdict for each backbone on all rows together: methods, shots and seeds count equally, and so do classes.

    With several backbones the verdicts are corrected for their number (Holm), so that one of them is false in at most 5 %
    of studies.

    Args:
        rows: With one kind of test, of one or more data sets and methods; the rows of a method have one setting.
        baseline: Name of the backbone to compare with.
        others: The ones to judge.
    """
    several = _methods_with_several_settings(rows)
    compared: dict[str, tuple[Comparison | None, str]] = {
        name: (None, several) if several else _compare(rows, baseline, name) for name in others
    }
    known = {name: one for name, (one, _) in compared.items() if one is not None}
    corrected = holm({name: one.p_value for name, one in known.items()})
    verdicts = []
    for name in others:
        comparison, why_not = compared[name]
        if comparison is None:
            verdicts.append(Verdict(name, "not compared", f"Not compared with {baseline}: {why_not}.", None))
        else:
            chance = corrected[name] >= LEVEL
            verdict = "no difference" if chance else comparison.verdict
            of_both = [row for row in rows if row.backbone in (baseline, name)]
            verdicts.append(Verdict(name, verdict, _sentence(comparison, verdict, baseline, of_both), comparison))
    return verdicts


def _methods_with_several_settings(rows: Sequence[Row]) -> str:
    """Says which methods these are; empty if there are none."""
    cases = Counter((*_condition(row), row.class_name, row.seed, row.backbone) for row in rows)
    methods = dict.fromkeys(case[2] for case, number in cases.items() if number > 1)
    if not methods:
        return ""
    return f"this folder holds several settings of {' and '.join(map(str, methods))}, which have no common mean; see them below"


def compare_parts(groups: Iterable[Sequence[Row]], baseline: str) -> list[Part]:
    """Each backbone against the baseline, in each group of rows that have method, settings and data set in common.

    Backbones of other architectures have layers of other names, and so groups without the baseline. These are compared with
    the baseline's rows of the same data set, method, shots and test.
    """
    groups = list(groups)
    everything = [row for rows in groups for row in rows if row.backbone == baseline]
    parts = []
    for rows in groups:
        own = [row for row in rows if row.backbone == baseline]
        start = own or [row for row in everything if _condition(row) == _condition(rows[0])]
        for name in dict.fromkeys(row.backbone for row in rows if row.backbone != baseline):
            both = [*start, *(row for row in rows if row.backbone == name)]
            parts.append(Part(name, both, *_compare(both, baseline, name)))
    return parts


def _condition(row: Row) -> tuple[object, ...]:
    return row.dataset, row.test, row.method, row.shots


def _compare(rows: Sequence[Row], baseline: str, name: str) -> tuple[Comparison | None, str]:
    """The comparison, or the reason why there is none."""
    start, other = ([row for row in rows if row.backbone == one] for one in (baseline, name))
    try:
        return compare(start, [other]), ""
    except InputError as error:
        return None, brief(error).rstrip(".")


def _sentence(c: Comparison, verdict: str, baseline: str, rows: Sequence[Row]) -> str:
    kind = None if rows[0].test == REAL else rows[0].test.partition(":")[2]
    says = {
        "better": f"Better than {baseline}: {points(c.difference)} points more image AUROC",
        "worse": f"Worse than {baseline}: {points(-c.difference)} points less image AUROC",
        "no difference": f"No difference from {baseline} beyond chance: {signed(c.difference)} points of image AUROC",
    }
    sentence = f"{says[verdict]} ({interval_in_words(c)}) on {tested_on(c, kind)}, {_measured_with(rows)}."
    if verdict != c.verdict:
        sentence += (
            " The interval leaves out 0, but with several backbones one such interval is to be expected by chance."
        )
    return sentence + "".join(_transductive(rows))


def _measured_with(rows: Sequence[Row]) -> str:
    methods: Mapping[str, None] = dict.fromkeys(row.method for row in rows)
    seeds = sorted({row.seed for row in rows})
    return f"with {' and '.join(methods)}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _transductive(rows: Sequence[Row]) -> Iterable[str]:
    for name in dict.fromkeys(row.backbone for row in rows if row.transductive):
        seen = dict.fromkeys(row.class_name for row in rows if row.transductive and row.backbone == name)
        yield (
            f" Transductive: {name} was pre-trained on images of {', '.join(seen)}, so its scores there say little about "
            f"other products."
        )
