"""What MkDocs does to the pages: the start page is README's first screen, and links that leave docs/ become file names.

On GitHub these links lead to the files; the site has no copy of them.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIRST_SCREEN = "<!-- README's first screen -->"
_CODE = re.compile(r"(^ *```.*?^ *```$)", re.M | re.S)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Called by MkDocs with the text of each page."""
    source = page.file.src_uri
    if FIRST_SCREEN in markdown:
        markdown = markdown.replace(FIRST_SCREEN, _relinked(_first_screen(), "README.md", source))
    return _relinked(markdown, f"docs/{source}", source)


def _first_screen() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- start of the first screen -->\n(.*)<!-- end of the first screen -->", text, re.S)
    assert found, "README.md has no first screen"
    return found[1]


def _relinked(markdown: str, written_in: str, shown_in: str) -> str:
    """The text with links that work in a page of the site.

    Args:
        markdown: Text.
        written_in: Path of its file, from the project's root, to which its links are relative.
        shown_in: Path of the page, from docs/.
    """

    def link(found: "re.Match[str]") -> str:
        picture, words, target, anchor = found[1], found[2], found[3], found[4] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(written_in), target))
        if not path.startswith("docs/"):
            return f"{words}: `{path}` in the repository"
        path = posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(shown_in) or ".")
        return f"{picture}[{words}]({path}{anchor})"

    parts = _CODE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(link, part) for number, part in enumerate(parts))
