"""The errors that a user's input can cause. Command lines print their text alone, with no traceback, and exit with code 2.

Each also derives from the built-in error of its kind, so that code which catches `ValueError` and the like keeps working.
"""

__all__ = ["ImageError", "InputError", "TabzooError", "TrainingError", "WeightsError"]


class TabzooError(Exception):
    """Anything that the user can put right; the text says what was given, what is accepted and what to type."""


class InputError(TabzooError, ValueError):
    """A value, a folder or a file that does not fit."""


class WeightsError(TabzooError, RuntimeError):
    """Weights that are not published, can't be fetched or don't fit the model."""


class TrainingError(TabzooError, RuntimeError):
    """A run that can't go on, such as one whose loss is no longer a number."""


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
