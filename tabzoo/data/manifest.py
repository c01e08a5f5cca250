"""Manifests: tables in CSV or JSONL that list the images of a data set."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tabzoo.data.labels import GOOD, is_good, is_unlabelled
from tabzoo.data.samples import TEST, TRAIN, Samples
from tabzoo.errors import InputError

__all__ = ["csv_rows", "read_manifest", "read_split"]

_GOOD_LABELS = frozenset({"", "false"})  # in addition to the words for folders
_ANOMALOUS_LABELS = frozenset({"true"})
_DOUBTFUL_LABELS = frozenset({"no", "yes", "n", "y"})  # is it good? is it defective?
_FIELDS = frozenset({"path", "class", "split", "label", "mask", "image"})
_SPLITS = {"": TRAIN, "train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST}


def read_manifest(path: Path, layout: str) -> Samples:
    """Reads a table of images; paths are relative to its folder, or absolute."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"{path}: a file; expected a folder of images, or a manifest that ends in .csv or .jsonl")
    if layout != "auto":
        raise InputError(f"{path}: a manifest says itself what class, split and label are; remove --layout {layout}")
    rows = csv_rows(path, ("path", "class")) if path.suffix.lower() == ".csv" else _jsonl_rows(path, ("path", "class"))
    groups: dict[tuple[str, int, str], tuple[list[bytes], list[bytes]]] = {}
    lines: dict[bytes, int] = {}
    for line, row in rows:
        image, class_name = _manifest_path(row.get("path", "")), row.get("class", "")
        label = row.get("label", "")
        if not image or not class_name:
            raise InputError(f"{path}, line {line}: no {'class' if image else 'path'} given")
        split = read_split(path, line, row)
        if image in lines:
            raise InputError(f"{path}, line {line}: {os.fsdecode(image)} is listed twice, first in line {lines[image]}")
        lines[image] = line
        try:
            defect = _defect(label)
        except ValueError:
            raise InputError(
                f"{path}, line {line}: label {label!r}; expected good, a kind of defect, or 0 (good) or 1 (defective)"
            ) from None
        paths, masks = groups.setdefault((class_name, split, defect), ([], []))
        paths.append(image)
        masks.append(_manifest_path(row.get("mask", "")))
    if not groups:
        raise InputError(
            f"{path}: no rows; expected one image a line with path, class and optionally split, label, mask"
        )
    parts = [
        Samples.alike(*key, *(np.array(column, dtype=np.bytes_) for column in part)) for key, part in groups.items()
    ]
    return Samples.merged(path.parent, "manifest", parts, ())


def read_split(path: Path, line: int, row: dict[str, str]) -> int:
    """TRAIN or TEST; TRAIN if the row does not say.

    Raises:
        InputError: The row says something else.
    """
    split = row.get("split", "").lower()
    if split not in _SPLITS:
        raise InputError(f"{path}, line {line}: split {split!r}; accepted: train, test")
    return _SPLITS[split]


def _defect(label: str) -> str:
    """The kind of defect that a label names, or GOOD.

    Raises:
        ValueError: A number other than 0 and 1, a word for a missing value, or yes or no.
    """
    if label.lower() in _GOOD_LABELS or is_good(label):
        return GOOD
    if label.lower() in _ANOMALOUS_LABELS:
        return "anomaly"
    try:
        number = float(label)  # 0, 0.0 and 0e0 are one number, however a spreadsheet writes it
    except ValueError:
        if is_unlabelled(label) or label.lower() in _DOUBTFUL_LABELS:
            raise
        return label
    if number not in (0, 1):
        raise ValueError(label)
    return "anomaly" if number else GOOD


def _manifest_path(text: str) -> bytes:
    # In a table written on Windows; in practice, names contain no backslash.
    text = text.replace("\\", "/") if "/" not in text else text
    return os.fsencode(os.path.normpath(text)) if text else b""


def csv_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each row of a table separated by comma, semicolon or tab, as spreadsheets write them.

    Names in the header become lower case.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True)  # a quote that is never closed is an error
            fields = [name.strip().lower() for name in next(reader, ())]
            _check_fields(path, 1, fields, required)
            for values in reader:
                if any(values[len(fields) :]):
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(values)} fields, the first line has {len(fields)}; put a "
                        f"field that contains {delimiter!r} in double quotes"
                    )
                if values:
                    row = dict.fromkeys(fields, "") | dict(zip(fields, map(str.strip, values), strict=False))
                    yield reader.line_num, _checked_text(path, reader.line_num, row)
    except csv.Error as error:
        quotes = " (a double quote opens a field, and another one closes it)" if "data" in str(error) else ""
        raise InputError(f"{path}, line {reader.line_num}: not a row of a table: {error}{quotes}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a UTF-8 table: {error}") from error


def _jsonl_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each row; null counts as missing."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    pairs = json.loads(text, object_pairs_hook=_Pairs)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}, line {line}: not JSON: {str(error).splitlines()[0]}") from error
                if not isinstance(pairs, _Pairs):
                    raise InputError(f"{path}, line {line}: expected an object, got {text.strip()[:40]}")
                _check_fields(path, line, [name.lower() for name, _ in pairs], required)
                for name, value in pairs:
                    accepted = str if name.lower() in ("path", "mask") else _SIMPLE
                    if name.lower() in _FIELDS and value is not None and not isinstance(value, accepted):
                        got = "a list or an object" if isinstance(value, list) else value
                        raise InputError(f"{path}, line {line}: {name} is {got}; expected text")
                row = {name.lower(): "" if value is None else str(value).strip() for name, value in pairs}
                yield line, _checked_text(path, line, row)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as UTF-8 text: {error}") from error


_SIMPLE = (str, int, float, bool)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its names in order, also those that are given twice."""


def _check_fields(path: Path, line: int, fields: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in fields]
    if missing:
        got = ", ".join(fields) or "none"
        raise InputError(f"{path}, line {line}: no field {missing[0]!r}; expected {', '.join(required)}; got {got}")
    double = [name for name in fields if name in _FIELDS and fields.count(name) > 1]
    if double:
        raise InputError(f"{path}, line {line}: the field {double[0]!r} is given twice; expected once")


def _checked_text(path: Path, line: int, row: dict[str, str]) -> dict[str, str]:
    """The row, if its texts can be names of files, classes and defects."""
    for name in _FIELDS & row.keys():
        try:
            if "\0" in row[name]:
                raise ValueError
            row[name].encode()
        except ValueError:
            raise InputError(
                f"{path}, line {line}: {name} is {row[name]!a}; expected valid Unicode without NUL"
            ) from None
    return row
