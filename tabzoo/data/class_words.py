"""The words that stand for each class in prompts."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from tabzoo.errors import InputError, counted, did_you_mean

__all__ = ["Spelling", "class_words", "folder_words", "is_words"]

Spelling = Literal["words", "folder"]

logger = logging.getLogger(__name__)

# Only where the rule in `class_words` gives words that people do not use. Words must differ between classes, because equal
# words give equal text features.
_WORDS = {
    "chewinggum": "chewing gum",  # VisA
    **{f"pcb{i}": f"printed circuit board {i}" for i in range(1, 5)},
    "bracket_black": "black bracket",  # MPDD
    "bracket_brown": "brown bracket",
    "bracket_white": "white bracket",
    "tubes": "tube",
}

# BTAD publishes numbers only. The words describe what its images show: 01 a round grey part, 02 a surface with wood
# grain, 03 a dark round part like a wheel. They are ours and not its authors'.
_BTAD_WORDS = {"01": "round metal part", "02": "wood surface", "03": "wheel"}


def class_words(
    classes: Sequence[str], overrides: Mapping[str, str], layout: str, *, spelling: Spelling = "words"
) -> dict[str, str]:
    """The words that stand for each class in prompts.

    Built in for MVTec AD, BTAD, VisA, MPDD and the Industrial dataset. Otherwise the folder's name in lower case, with
    spaces for underscores and hyphens and before trailing digits: `metal_nut` is "metal nut", `pcb1` "pcb 1". The spelling
    "folder" takes folder names as they are, as the authors' code does.

    Args:
        classes: Class names.
        overrides: Class name to words, in place of the built-in ones.
        layout: The layout of the data set; BTAD's numbers are known only in BTAD.
        spelling: "words" for words that people use, or "folder" for the folder's name as it is.

    Raises:
        InputError: An override is for an unknown class, or is empty.
    """
    for name, words in overrides.items():
        if name not in classes:
            listed = counted(list(classes), "class", "classes")
            raise InputError(f"--class-names: no class {name!r}; there are {listed}.{did_you_mean(name, classes)}")
        if not words.strip():
            raise InputError(
                f"--class-names: no words for class {name!r}; type for example --class-names {name} 'metal nut'"
            )
    # The authors' code also calls VisA's macaroni1 and macaroni2 both "macaroni" (prompt_ensemble.py). That is not repeated
    # here: the two classes would have equal texts, and neither of the data sets of their recipes has them.
    own = dict(zip(classes, classes, strict=True)) if spelling == "folder" else folder_words(classes, layout)
    words_of = {name: overrides.get(name) or own[name] for name in classes}
    _warn_of_poor_words(words_of)
    return words_of


def folder_words(classes: Sequence[str], layout: str) -> dict[str, str]:
    """The words of each class that `class_words` takes where no others are given, without its warnings."""
    built_in = {**_WORDS, **(_BTAD_WORDS if layout == "btad" else {})}
    if layout == "ksdd2" and len(classes) == 1:
        built_in[classes[0]] = "metal surface"  # KSDD2 has one class, without a name.
    return {name: built_in.get(name) or _spelled(name) for name in classes}


def _spelled(name: str) -> str:
    words = " ".join(re.sub(r"[_\-]+", " ", name).split()).lower()
    return re.sub(r"(?<=[^\W\d])(\d+)$", r" \1", words) or name


def is_words(words: str) -> bool:
    """Whether at least one word of the language may be among these: `01` and `pn 4711` say nothing about a product.

    A word has three letters and a vowel among them, or a letter that is not ASCII.
    """
    return any(
        not word.isascii() or (len(word) >= 3 and set(word.lower()) & set("aeiouy"))
        for word in re.findall(r"[^\W\d_]+", words)
    )


def _warn_of_poor_words(words_of: Mapping[str, str]) -> None:
    by_words: dict[str, list[str]] = {}
    for name, words in words_of.items():
        by_words.setdefault(words, []).append(name)
        if not is_words(words):
            logger.warning(
                "class %r has no words for the prompts: name it, for example with --class-names %s 'metal nut'",
                name,
                name,
            )
    for words, names in by_words.items():
        if len(names) > 1:
            logger.warning(
                "classes %s share the words %r, so text can't tell them apart: name them with --class-names",
                ", ".join(names),
                words,
            )
