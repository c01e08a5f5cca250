"""The errors that a user's input can cause. Command lines print their text alone, with no traceback, and exit with code 2.

Each also derives from the built-in error of its kind, so code that catches `ValueError`, for example, keeps working.
"""

import difflib
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "ImageError",
    "InputError",
    "TabzooError",
    "TrainingError",
    "WeightsError",
    "WriteError",
    "brief",
    "count",
    "counted",
    "did_you_mean",
]

# torch.load advises to read the file again in a way that executes the code in it.
_ADVICE = re.compile(r" (?=In PyTorch 2\.6, we changed|Re-running `torch\.load`)")


class TabzooError(Exception):
    """A mistake that the user can fix; the text says what was given, what is accepted and what to type."""


class InputError(TabzooError, ValueError):
    """A value, a folder or a file that does not fit."""


class WeightsError(TabzooError, RuntimeError):
    """Weights that are not published, can't be fetched or don't fit the model."""


class TrainingError(TabzooError, RuntimeError):
    """A run that can't go on, for example because its loss is NaN or infinite."""


class WriteError(TabzooError, OSError):
    """A file that can't be written, such as on a full disk."""


class ImageError(InputError):
    """A file that can't be read as an image.

    Args:
        path: The file.
        reason: Why, in a few words, without the path.
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        # The default would call the class with the one formatted text; worker processes pickle this error.
        return type(self), (self.path, self.reason)


def did_you_mean(name: object, accepted: Iterable[str]) -> str:
    """The end of a message about an unknown name: " Did you mean 'quickstart'?", or nothing when none is near.

    Names with dots are near if they are so without the start that they share: resnet18.a is not near resnet18.b.
    """
    given, by_lower = str(name).lower(), {option.lower(): option for option in accepted}
    # In a short word one typo is a large part of it.
    near = difflib.get_close_matches(given, by_lower, n=10, cutoff=0.6 if len(given) <= 4 else 0.75)
    near = [option for option in near if _is_near(given, option)]
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ""


def _is_near(given: str, option: str) -> bool:
    parts, others = given.split("."), option.split(".")
    while len(parts) > 1 and len(others) > 1 and parts[0] == others[0]:
        parts, others = parts[1:], others[1:]
    return difflib.SequenceMatcher(None, ".".join(others), ".".join(parts)).ratio() >= 0.6


def count(number: int, one: str, many: str | None = None) -> str:
    """A number of things: "1 image", "1,485 images"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def counted(names: Sequence[str], one: str, many: str | None = None) -> str:
    """A number of things and the first names: "4 classes (bolt, cable, nut, ...)"."""
    return f"{count(len(names), one, many)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def brief(error: BaseException) -> str:
    """A library's error in one line, for the middle of a message of ours, since some fill pages; ours stay as they are."""
    if isinstance(error, TabzooError):
        return str(error)
    lines = str(error).strip().splitlines()
    text = lines[0].strip() if lines else type(error).__name__
    if isinstance(error, KeyError):  # its text is only the key
        text = f"{type(error).__name__}: {text}"
    text = _ADVICE.split(text)[0]
    return text if len(text) <= 240 else f"{text[:240]} ..."
