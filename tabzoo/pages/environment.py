"""How pages are rendered: everything is escaped, and the page forbids the browser to load or run anything else."""

import base64
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from tabzoo.plain import for_lines, for_terminal
from tabzoo.scores.words import signed
from tabzoo.system import whole_file

__all__ = ["render", "write_html"]


def write_html(path: Path, template: str, **content: object) -> None:
    """Writes a page, completely or not at all.

    Args:
        path: HTML file to write.
        template: A package and a file in it, such as "tabzoo.trial/page.html"; it extends "tabzoo.pages/base.html".
        content: What the template shows. Text is escaped.

    Raises:
        WriteError: It can't be written.
    """
    text = render(template, **content)
    with whole_file(path) as file:
        file.write_text(text, encoding="utf-8")


def render(template: str, **content: object) -> str:
    """A page, or a part of one, as HTML.

    Args:
        template: A package and a file in it.
        content: What the template shows. Text is escaped.
    """
    return _environment().get_template(template).render(**content)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value: "-" if value is None else f"{100 * value:.1f}"
    environment.filters["signed"] = lambda value: "-" if value is None else signed(value)
    environment.filters["plain"] = for_terminal
    environment.filters["lines"] = for_lines
    # The two are ours: nothing from outside is in them, so they are not escaped.
    style, script = (_read(f"tabzoo.pages/{name}") for name in ("page.css", "sort.js"))
    environment.globals |= {"style": Markup(style), "script": Markup(script)}
    environment.globals |= {"style_hash": _hash(style), "script_hash": _hash(script)}
    return environment


def _read(name: str) -> str:
    package, _, file = name.partition("/")
    return resources.files(package).joinpath(file).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a content security policy names a text that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
