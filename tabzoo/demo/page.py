"""The page itself, built with Gradio. It loads and sends nothing outside of the machine it runs on.

Gradio would ask its makers for a newer version, send them what is built, keep photos in the browser's history, and take fonts
of Google if a theme names them. All of that is switched off here.
"""

import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tabzoo.data.images import IMAGE_SUFFIXES, read_image
from tabzoo.demo.choices import RANDOM, backbones_here
from tabzoo.demo.inspection import Finding, Settings, inspect_photo
from tabzoo.errors import InputError, TabzooError
from tabzoo.extras import how_to_install
from tabzoo.inspect.record import METHODS
from tabzoo.pages import embed_picture, render

__all__ = ["build_page", "launch"]

_SWITCHED_OFF = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_MCP_SERVER", "GRADIO_SHARE")
_LOCAL = ("127.0.0.1", "localhost")
_LARGEST_FILE = "200mb"
_OLD, _LOOK = 3600, 600
"""Seconds after which photos that were added are deleted, and between two looks at them."""
_LIST = 240
"""Height of the list of good photos, in pixels; it scrolls."""
_SIDE = 640
"""Longer side of the pictures, in pixels."""

_INTRODUCTION = """# Good photos, one to inspect, several backbones

Add a few photos of good parts, taken in the same way, and one photo to inspect. Each backbone shows where that photo differs
from the good ones. The machine that runs this page computes all of it, and keeps photos only in a temporary folder.
"""
_ONLY_RANDOM = """Only *random* is on offer: no weights are on this machine. It shows how the page works, not what a backbone
can do. Install weights (`tabzoo install NAME FROM`), or start the page with those that you name: `tabzoo demo --backbone
NAME|DIR`. Weights of timm, such as `resnet18.tv_in1k`, are fetched once from the Hub.
"""


def build_page(backbones: Sequence[str] = (), settings: Settings = Settings()) -> Any:  # noqa: B008
    """The page, a `gradio.Blocks`.

    Args:
        backbones: Those to choose from, all chosen at first. If none is given: those on this machine, the first one chosen.
        settings: How photos are inspected.

    Raises:
        InputError: Gradio is not installed.
    """
    gradio = _import_gradio()
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of unused layers; what matters is checked at the fit
    offered = [*backbones] or backbones_here()
    chosen = offered if backbones else offered[:1]
    endings = sorted(IMAGE_SUFFIXES)

    def inspect(good: list[str] | None, photo: str | None, names: list[str], method: str) -> Iterator[str]:
        yield from show_findings(good or [], photo, backbones=names, method=method, settings=settings)

    with gradio.Blocks(title="tabzoo demo", analytics_enabled=False, delete_cache=(_LOOK, _OLD)) as page:
        gradio.Markdown(_INTRODUCTION)
        with gradio.Row():
            several: Any = {"file_count": "multiple", "height": _LIST}
            good = gradio.File(label="Good photos, 2 or more", file_types=endings, elem_id="good", **several)
            photo = gradio.File(label="Photo to inspect", file_types=endings, elem_id="photo")
        names = gradio.CheckboxGroup(offered, value=chosen, label="Backbones", elem_id="backbones")
        if offered == [RANDOM]:
            gradio.Markdown(_ONLY_RANDOM)
        method = gradio.Radio(list(METHODS), value=METHODS[0], label="Method", elem_id="method")
        button = gradio.Button("Inspect", variant="primary", elem_id="inspect")
        shown = gradio.HTML(elem_id="findings")
        button.click(inspect, [good, photo, names, method], shown, api_visibility="private", concurrency_limit=1)
    return page


def launch(page: Any, **place: Any) -> None:
    """Starts to serve a page of `build_page`.

    Args:
        page: The page.
        place: More of Gradio's `launch`, such as `server_port`.
    """
    themes = _import_gradio().themes
    theme = themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page.launch(
        theme=theme,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=_LARGEST_FILE,
        quiet=True,
        **place,
    )


def show_findings(
    good: Sequence[str], photo: str | None, *, backbones: Sequence[str], method: str, settings: Settings
) -> Iterator[str]:
    """The lower part of the page as HTML, anew after each backbone.

    Args:
        good: Files of good photos.
        photo: File of the photo to inspect.
        backbones: Those that are chosen.
        method: That is chosen.
        settings: How photos are inspected.
    """
    findings: list[Finding] = []
    try:
        found = inspect_photo(
            [*map(Path, good)], Path(photo) if photo else None, backbones=backbones, method=method, settings=settings
        )
        picture = ""
        for name in backbones:
            yield _rendered(findings, picture, waiting=f"{name}: fitting to {len(good)} good photos")
            findings.append(next(found))
            picture = picture or embed_picture(read_image(str(photo)), _SIDE)
        for last in found:  # says what is wrong where nothing was chosen, and removes the temporary folder
            findings.append(last)
        yield _rendered(findings, picture)
    except (TabzooError, OSError) as error:
        yield _rendered(findings, "", problem=str(error))


def _rendered(findings: Sequence[Finding], photo: str, *, waiting: str = "", problem: str = "") -> str:
    pictures = [embed_picture(one.overlay, _SIDE) if one.overlay is not None else "" for one in findings]
    return render(
        "tabzoo.demo/findings.html",
        findings=list(zip(findings, pictures, strict=True)),
        notes=dict.fromkeys(note for one in findings for note in one.notes),
        photo=photo,
        waiting=waiting,
        problem=problem,
    )


def _import_gradio() -> Any:
    """The package gradio, which reads these variables while it is imported and later.

    Raises:
        InputError: It is not installed.
    """
    os.environ |= dict.fromkeys(_SWITCHED_OFF, "False")
    # Gradio asks the page for itself once it runs; a proxy for the network outside can't answer.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(dict.fromkeys([*filter(None, os.environ.get(name, "").split(",")), *_LOCAL]))
    try:
        return importlib.import_module("gradio")
    except ImportError as error:
        raise InputError(f"the demo page needs gradio: {how_to_install('demo')} ({error})") from error
