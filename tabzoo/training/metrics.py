"""Metrics of a training run: what a step gives, and their rows, read and cut back to a step."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tabzoo.jsonl import read_lines
from tabzoo.system import whole_file

__all__ = ["ACCURACY", "SHOWN", "STEP", "cut_back", "in_one", "read_rows"]

ACCURACY = {"tab": "product accuracy", "joint": "accuracy of product and state"}
"""Objective to what its accuracies are called: the share of images whose most similar text is their own. With `tab` they are
compared with the texts of all products, with `joint` with the normal and the abnormal texts of all products."""

_OF_BRANCHES = ("loss_normal", "loss_abnormal", "accuracy_normal", "accuracy_abnormal")
STEP = {
    "tab": _OF_BRANCHES,
    "joint": _OF_BRANCHES,
    "ranking": ("loss", "loss_nearest", "loss_position", "drift", "auroc"),
}
"""Objective to the metrics that a step gives. A row has these; where they have no loss, it is first, made of both branches'."""

SHOWN = {
    "loss": "loss",
    "accuracy_normal": "normal images",
    "accuracy_abnormal": "synthetic anomalies",
    "auroc": "AUROC of synthetic anomalies against good images, in a batch",
}
"""Metrics of a row that a result names, and what they are called there."""


def in_one(outcomes: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """The metrics of a batch: each of the fields of its forward passes, of one pass after another, without gradient."""
    return torch.stack([torch.stack(outcome) for outcome in outcomes], dim=1).flatten().detach()


def cut_back(path: Path, step: int) -> None:
    """Drops the rows of steps after `step`, and an incomplete last line.

    Raises:
        InputError: As for `read_rows`; the file stays as it is.
    """
    if path.exists():
        kept = [row for row in read_rows(path) if row["step"] <= step]
        with whole_file(path) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def read_rows(path: Path) -> Sequence[dict[str, Any]]:
    """Rows of a JSONL file, each with its step; an empty list if the file does not exist. An incomplete last line is skipped.

    Raises:
        InputError: A line is not a row, or the file can't be read.
    """
    return read_lines(path, _with_step, what="a row of metrics")


def _with_step(row: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(row.get("step"), int):
        raise ValueError("expected a JSON object with a step")
    return row
