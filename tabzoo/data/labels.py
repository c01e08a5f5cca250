"""Labels and splits that folder names don't tell: found in KSDD2's masks and VisA's table once the layout is chosen."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from tabzoo.data.images import read_mask
from tabzoo.data.manifest import csv_rows, read_split
from tabzoo.data.samples import GOOD, TEST, TRAIN, counted
from tabzoo.data.styles import UNLABELLED, UNSPLIT, Reading
from tabzoo.errors import ImageError

__all__ = ["label_by_mask", "split_by_table"]


def label_by_mask(root: Path, reading: Reading) -> Reading:
    """Splits groups whose label is in their masks: a non-zero pixel means defective."""
    labelled = replace(reading, groups=[])
    for group in reading.groups:
        if group.defect != UNLABELLED:
            labelled.groups.append(group)
            continue
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            states = list(pool.map(lambda mask: _has_defect(root, mask), group.masks.tolist()))
        for path, state in zip(group.paths.tolist(), states, strict=True):
            if isinstance(state, ImageError):
                labelled.notes.append(f"{os.fsdecode(path)}: left out, its label is unknown: {state}")
        good, bad = (np.array([state is label for state in states]) for label in (False, True))
        # An all-zero mask tells no more than "good" does.
        clean = replace(group, masks=np.zeros(len(group.paths), dtype="S1"))
        labelled.groups += clean.select(good, split=group.split, defect=GOOD)
        labelled.groups += group.select(bad, split=group.split, defect="defect")
    return labelled


def _has_defect(root: Path, mask: bytes) -> bool | ImageError:
    try:
        return bool(read_mask(root / os.fsdecode(mask)).any())
    except ImageError as error:
        return error


def split_by_table(root: Path, reading: Reading) -> Reading:
    """Splits VisA's groups by its `1cls.csv` (object, split, label, image, mask), beside the class folders."""
    unsplit = [group for group in reading.groups if group.split == UNSPLIT]
    if not unsplit:
        return reading
    present: set[bytes] = {path for group in unsplit for path in group.paths.tolist()}
    splits, table = _visa_table(root)
    divided = replace(reading, groups=[group for group in reading.groups if group.split != UNSPLIT])
    if table is None:
        divided.notes.append(f"{root}: no split_csv/1cls.csv: all normal images are read as train, none as test")
        splits = {path: TRAIN if group.defect == GOOD else TEST for group in unsplit for path in group.paths.tolist()}
    for group in unsplit:
        for split in (TRAIN, TEST):
            keep = np.array([splits.get(path) == split for path in group.paths.tolist()])
            divided.groups += group.select(keep, split=split, defect=group.defect)
    folders = {os.path.dirname(path) for path in present}
    unlisted = [os.fsdecode(path) for path in sorted(present - set(splits))]
    absent = [os.fsdecode(path) for path in sorted(set(splits) - present) if os.path.dirname(path) in folders]
    if unlisted:
        divided.notes.append(f"{root}: left out, not in {table}: {counted(unlisted, 'image')}")
    if absent:
        divided.notes.append(f"{root}: in {table} but not there: {counted(absent, 'image')}")
    return divided


def _visa_table(root: Path) -> tuple[dict[bytes, int], Path | None]:
    """The split of each image path relative to `root`, which holds the class folders or is one of them."""
    for base, prefix in ((root, ""), (root.parent, root.name + "/")):
        for table in (base / "split_csv" / "1cls.csv", base / "1cls.csv"):
            if table.is_file():
                rows = [
                    (line, row) for line, row in csv_rows(table, ("image", "split")) if row["image"].startswith(prefix)
                ]
                splits = {os.fsencode(row["image"][len(prefix) :]): read_split(table, line, row) for line, row in rows}
                return splits, table
    return {}, None
