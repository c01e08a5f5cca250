"""Words in the names of folders and in tables: which mean that an image is good, and which say nothing."""

import difflib
import re

__all__ = ["GOOD", "is_good", "is_unlabelled", "near_good"]

GOOD = "good"

# Lower case, without spaces, "_", "-" and ".": "Defect-Free" is "defectfree", the German "i.O." is "io".
_GOOD_WORDS = frozenset(
    [
        *("good", "ok", "okay", "normal", "nominal", "pass", "passed", "io", "healthy", "intact", "faultless"),
        *("defectfree", "nodefect", "nodefects", "nondefect", "nondefective", "notdefective"),
        *("nonanomalous", "noanomaly", "anomalyfree", "faultfree", "nofault"),
    ]
)
_UNLABELLED_WORDS = frozenset(
    [
        *("", "none", "null", "nil", "nan", "na", "n/a", "unknown", "undefined", "tbd", "todo"),
        *("unlabeled", "unlabelled", "notlabeled", "notlabelled", "unsorted", "unclassified"),
    ]
)


def is_good(word: str) -> bool:
    """Whether a folder or a label with this name holds good parts: the one list for all layouts and manifests."""
    return _plain(word) in _GOOD_WORDS


def is_unlabelled(word: str) -> bool:
    """Whether a name says that the label is not known: "unknown", "n/a", "-", "?" or nothing."""
    return re.sub(r"[^\w/]", "", _plain(word)) in _UNLABELLED_WORDS


def near_good(word: str) -> bool:
    """Whether the name of a defect is probably a misspelt word for good, such as "goood"."""
    plain = _plain(word)
    near = difflib.get_close_matches(plain, _GOOD_WORDS, n=1, cutoff=0.8)
    return bool(near) and not is_good(word) and len(plain) > 3 and abs(len(plain) - len(near[0])) < 2


def _plain(word: str) -> str:
    return re.sub(r"[\s_.-]+", "", word.lower())
