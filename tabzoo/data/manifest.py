"""Tables of images: a manifest that lists a data set in CSV or JSONL, read into samples."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tabzoo.data.samples import GOOD, TEST, TRAIN, Group, Samples, assemble
from tabzoo.errors import InputError

__all__ = ["csv_rows", "read_manifest"]

_GOOD_LABELS = frozenset({"", "good", "normal", "ok", "false"})
_ANOMALOUS_LABELS = frozenset({"true"})
_NO_LABELS = frozenset({"none", "null", "na", "n/a", "unknown", "?"})
_SPLITS = {"": TRAIN, "train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST}


def read_manifest(path: Path, layout: str) -> Samples:
    """A table of images; paths start from its folder, or are absolute."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"{path}: a file; expected a folder of images, or a manifest that ends in .csv or .jsonl")
    if layout != "auto":
        raise InputError(f"{path}: a manifest states class, split and label itself; leave --layout {layout} away")
    rows = csv_rows(path, ("path", "class")) if path.suffix.lower() == ".csv" else _jsonl_rows(path, ("path", "class"))
    groups: dict[tuple[str, int, str], tuple[list[bytes], list[bytes]]] = {}
    lines: dict[bytes, int] = {}
    for line, row in rows:
        image, class_name = _manifest_path(row.get("path", "")), row.get("class", "")
        split, label = row.get("split", "").lower(), row.get("label", "")
        if not image or not class_name:
            raise InputError(f"{path}, line {line}: no {'class' if image else 'path'} given")
        if split not in _SPLITS:
            raise InputError(f"{path}, line {line}: split {split!r}; accepted: train, test")
        if image in lines:
            raise InputError(f"{path}, line {line}: {os.fsdecode(image)} is listed twice, first in line {lines[image]}")
        lines[image] = line
        try:
            defect = _defect(label)
        except ValueError:
            raise InputError(
                f"{path}, line {line}: label {label!r}; expected good, a kind of defect, or 0 (good) or 1 (defective)"
            ) from None
        paths, masks = groups.setdefault((class_name, _SPLITS[split], defect), ([], []))
        paths.append(image)
        masks.append(_manifest_path(row.get("mask", "")))
    if not groups:
        raise InputError(
            f"{path}: no rows; expected one image a line with path, class and optionally split, label, mask"
        )
    arrays = [Group(*key, *(np.array(part, dtype=np.bytes_) for part in parts)) for key, parts in groups.items()]
    return assemble(path.parent, "manifest", arrays, ())


def _defect(label: str) -> str:
    """The kind of defect that a label names, or GOOD.

    Raises:
        ValueError: A number other than 0 and 1, or a word for a missing value.
    """
    if label.lower() in _GOOD_LABELS:
        return GOOD
    if label.lower() in _ANOMALOUS_LABELS:
        return "anomaly"
    try:
        number = float(label)  # 0, 0.0 and 0e0 are one number, however a spreadsheet writes it
    except ValueError:
        if label.lower() in _NO_LABELS:
            raise
        return label
    if number not in (0, 1):
        raise ValueError(label)
    return "anomaly" if number else GOOD


def _manifest_path(text: str) -> bytes:
    # A table written on Windows; a backslash inside a name does not occur in practice.
    text = text.replace("\\", "/") if "/" not in text else text
    return os.fsencode(os.path.normpath(text)) if text else b""


def csv_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of a table separated by comma, semicolon or tab, as spreadsheets write them.

    Names in the header are read in lower case.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=first.count), restval="")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            _check_fields(path, 1, reader.fieldnames, required)
            for row in reader:
                yield reader.line_num, {name: value.strip() for name, value in row.items() if name is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read as a UTF-8 table: {error}") from error


def _jsonl_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields; null counts as absent."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                row = json.loads(text)
                if not isinstance(row, dict):
                    raise InputError(f"{path}, line {line}: expected an object, got {text.strip()[:40]}")
                fields = {name.lower(): "" if value is None else str(value).strip() for name, value in row.items()}
                _check_fields(path, line, list(fields), required)
                yield line, fields
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: can't be read as UTF-8 text: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {line}: not JSON: {error}") from error


def _check_fields(path: Path, line: int, fields: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in fields]
    if missing:
        got = ", ".join(fields) or "none"
        raise InputError(f"{path}, line {line}: no field {missing[0]!r}; expected {', '.join(required)}; got {got}")
