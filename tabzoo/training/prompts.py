"""Prompt sets: the sentences that describe a normal and an abnormal product.

A set holds states with a place for the class name, and templates with a place for the state. A class's normal sentences
are all normal states in all templates; its abnormal sentences likewise (TAB, supplement section 2).
"""

import hashlib
import json
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from tabzoo.errors import InputError, did_you_mean
from tabzoo.strict_yaml import read_yaml

__all__ = ["BUILT_IN", "PromptSet", "load_prompts"]

BUILT_IN = ("tab", "authors")
"""Names of the sets in the package: the paper's lists, and the older ones of the authors' code."""


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """States and templates; `{c}` in a state is the class name, `{s}` in a template is a state."""

    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]

    def sentences(self, class_words: str) -> tuple[list[str], list[str]]:
        """All sentences of one class, template by template within each state.

        Args:
            class_words: The class name as words, such as "metal nut".

        Returns:
            The normal sentences (states x templates) and the abnormal ones; 160 and 340 for the paper's set.
        """
        return self._fill(self.normal, class_words), self._fill(self.abnormal, class_words)

    def digest(self) -> str:
        """SHA-256 of the set's content, in hex: it shows whether text features were made from these sentences."""
        return hashlib.sha256(json.dumps(asdict(self), ensure_ascii=False).encode()).hexdigest()

    def _fill(self, states: Sequence[str], class_words: str) -> list[str]:
        # str.replace and not str.format: a class name or a user's sentence may hold braces.
        phrases = [state.replace("{c}", class_words) for state in states]
        return [template.replace("{s}", phrase) for phrase in phrases for template in self.templates]


def load_prompts(name: str) -> PromptSet:
    """A built-in prompt set by name, or a user's own from a YAML file.

    The file has three lists: `normal` and `abnormal`, states with `{c}` for the class name, and `templates` with `{s}`
    for the state.

    Raises:
        InputError: The name is neither built in nor a file, or the file is not such a set.
    """
    if name in BUILT_IN:
        text = resources.files("tabzoo.training").joinpath("prompt_sets", f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = _read_text(Path(name))
    else:
        hint = did_you_mean(name, BUILT_IN)
        raise InputError(
            f"--prompts {name}: neither a built-in set ({', '.join(BUILT_IN)}) nor an existing YAML file.{hint}"
        )
    try:
        content = read_yaml(text)
    except ValueError as error:
        raise InputError(f"--prompts {name}: not valid YAML: {error}") from error
    return _parse(content, name)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--prompts {path}: can't be read as a UTF-8 text file: {error}") from error


def _parse(content: object, name: str) -> PromptSet:
    keys = {"normal": "{c}", "abnormal": "{c}", "templates": "{s}"}
    if not isinstance(content, dict) or set(content) != set(keys):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"--prompts {name}: expected exactly the lists {', '.join(keys)}; got {found}")
    for key, place in keys.items():
        entries = content[key]
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
            raise InputError(
                f"--prompts {name}: '{key}' must be a list of at least one sentence; got {reprlib.repr(entries)}"
            )
        for entry in entries:
            if place not in entry:
                raise InputError(f"--prompts {name}: '{entry}' in '{key}' has no {place}; write it where the name goes")
    return PromptSet(**{key: tuple(content[key]) for key in keys})
