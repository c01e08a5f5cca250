"""Opens a page in a headless browser: what it shows after its scripts ran, and what it complains of."""

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
)


class Opened(NamedTuple):
    """A page in the browser.

    Attributes:
        dom: HTML after all scripts ran.
        console: What scripts, and the rules of the page, said.
    """

    dom: str
    console: list[str]


def open_page(page: Path, profile: Path, *, script: str = "") -> Opened:
    """Opens a page.

    Args:
        page: HTML file.
        profile: A folder for the browser's own files.
        script: To be run after those of the page, which would forbid it otherwise.
    """
    text = page.read_text(encoding="utf-8")
    if script:
        allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        text = text.replace("script-src ", f"script-src {allowed} ").replace(
            "</body>", f"<script>{script}</script></body>"
        )
        page = page.with_name("with_a_script.html")
        page.write_text(text, encoding="utf-8")
    command = [
        str(CHROMIUM),
        *FLAGS,
        "--enable-logging=stderr",
        "--dump-dom",
        f"--user-data-dir={profile}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Opened(done.stdout, re.findall(r".*CONSOLE.*", done.stderr))


class Elements(HTMLParser):
    """What is in a page.

    Attributes:
        tags: Names of all tags.
        sources: What a browser loads by itself: addresses of pictures, scripts, styles and frames.
        links: Addresses that a click goes to.
        tables: The text of each cell, by table and row; those of a head are the first rows.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag and its addresses."""
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action", "poster") or (name == "href" and tag != "a"):
                self.sources.append(value or "")
            elif name == "href":
                self.links.append(value or "")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        """Notes the end of a cell."""
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Notes the text of a cell."""
        if self._in_cell:
            self.tables[-1][-1][-1] += data.strip()


def check_loads_nothing(text: str) -> Elements:
    """Checks that a page needs nothing but itself; returns what is in it."""
    elements = Elements(text)
    assert all(address.startswith("data:image/") for address in elements.sources)
    assert not any(re.match(r"[a-z]+:|//", link) for link in elements.links)
    assert not set(elements.tags) & {"link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'; img-src data:" in text
    return elements
