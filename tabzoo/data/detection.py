"""Which layouts a tree fits: the styles that each accepts, and the folders that are probably no classes."""

import os
from pathlib import Path

from tabzoo.data.industrial import INDUSTRIAL
from tabzoo.data.samples import counted, is_good, is_unlabelled
from tabzoo.data.styles import Reading, Style, good_defect_style, is_truth, ksdd2_style, plain_style, visa_style
from tabzoo.data.tree import Folder
from tabzoo.errors import did_you_mean

__all__ = ["read_tree"]

_MVTEC = good_defect_style(is_good)
_BTAD = good_defect_style(lambda name: name.lower() in ("ok", "ko"))

# In the order in which they are tried.
_STYLES: dict[str, tuple[Style, ...]] = {
    "visa": (visa_style,),
    "ksdd2": (ksdd2_style,),
    "btad": (_BTAD,),
    "mvtec": (_MVTEC,),
    "industrial": (plain_style,),
    "folder": (visa_style, ksdd2_style, _BTAD, _MVTEC, plain_style),
}

# Folders with these names hold a split or a label; images directly in them are not a class.
_NOT_CLASSES = frozenset(
    [
        *("train", "training", "test", "testing", "val", "valid", "validation"),
        *("bad", "ko", "ng", "nio", "abnormal", "anomaly", "anomalous", "anomalies", "fail", "failed"),
        *("defect", "defects", "defective", "faulty", "image", "images"),
    ]
)


def read_tree(tree: Folder, root: Path, wanted: str) -> tuple[dict[str, Reading], str]:
    """Every layout that fits, specific first, and why one that nearly fits does not."""
    readings: dict[str, Reading] = {}
    problem = ""
    for name in _STYLES if wanted == "auto" else (wanted,):
        try:
            reading = _read_layout(tree, root, name, strict=wanted == "auto")
        except _Doubt as doubt:
            problem = str(doubt)
            continue
        if reading is not None:
            readings[name] = reading
    return readings, problem


class _Doubt(Exception):  # noqa: N818 (not an error: another layout may fit)
    """Why a layout should not be read without being asked for."""


def _read_layout(tree: Folder, root: Path, name: str, *, strict: bool) -> Reading | None:
    """One class if the root itself has the style, else its folders as classes.

    Args:
        strict: Refuse what is probably meant otherwise; false when the user has named the layout.

    Raises:
        _Doubt: A plain folder is probably no class.
    """
    structured = [style for style in _STYLES[name] if style is not plain_style]
    for style in structured:
        whole = style(tree, _single_class(root))
        if whole is not None:
            return whole
    reading, plain = Reading(), []
    for key, folder in tree.folders.items():
        found = next((found for style in structured if (found := style(folder, os.fsdecode(key))) is not None), None)
        if found is not None:
            reading.add(found)
        elif folder.images.size and plain_style in _STYLES[name]:
            plain.append(folder)
    if name == "industrial":
        plain = _industrial_only(root, plain, strict=strict)
    elif strict and plain:
        plain = _surely_classes(root, tree, plain, alone=not reading.groups)
    for folder in plain:
        reading.add(plain_style(folder, folder.name) or Reading())
    if name == "folder" and not reading.groups:
        return plain_style(tree, _single_class(root))
    return reading if reading.groups else None


def _single_class(root: Path) -> str:
    """The name of a class that is the whole data set; `hazelnut/train/good` is hazelnut, too."""
    names = [folder.name for folder in (root, *root.parents[:2]) if folder.name]
    return next((name for name in names if not _no_class(name)), names[0] if names else "images")


def _no_class(name: str) -> bool:
    return name.lower() in _NOT_CLASSES or is_good(name) or is_unlabelled(name) or is_truth(name)


def _industrial_only(root: Path, folders: list[Folder], *, strict: bool) -> list[Folder]:
    classes = [entry.name for entry in INDUSTRIAL]
    known = {name.lower() for name in classes}
    unknown = [folder.name for folder in folders if folder.name.lower() not in known]
    if unknown and not strict:
        hint = did_you_mean(unknown[0], classes)
        raise _Doubt(
            f"{root / unknown[0]}: no class of the Industrial dataset; rename it, or use --layout folder.{hint}"
        )
    return [] if unknown else folders


def _surely_classes(root: Path, tree: Folder, folders: list[Folder], *, alone: bool) -> list[Folder]:
    """The plain folders that are classes without doubt."""
    doubtful = [folder for folder in folders if _no_class(folder.name)]
    if doubtful and alone:
        name = doubtful[0].name
        raise _Doubt(
            f"{root / name}: {len(doubtful[0].images)} images directly in a folder that is named like a split or a label, "
            "not like a class. For one product, arrange NAME/train/good/*.png, NAME/test/good/*.png and "
            "NAME/test/DEFECT/*.png, or list the images in a manifest (CSV or JSONL with path, class, split, label, mask) "
            "and give that file. To take each folder as a class all the same, use --layout folder"
        )
    classes = [folder for folder in folders if folder not in doubtful]
    if classes and tree.images.size:
        names = counted([folder.name for folder in classes], "class", "classes")
        raise _Doubt(
            f"{root}: {len(tree.images)} images directly in it ({os.fsdecode(tree.images[0])}, ...) and more in folders: "
            f"either one class or {names}. Use --layout folder to take the folders as classes and leave the images beside "
            "them out, or move the folders away"
        )
    return classes
