"""README and docs/ as a test reads them: their code blocks, the commands in these, and their links.

Comments above a block, invisible on the page, say what the test does with it:

    <!-- not run: REASON -->            it is only parsed: REASON is what it needs, such as a network, a GPU or hours
    <!-- tested with: OLD -> NEW; OLD -> NEW -->    what the test types in place of names that need a network, or hours
    <!-- exit code: 1 -->               of the block; `tabzoo score` says by it that a photo is defective

Each page has a folder with `photos/`, and with what spares a command seconds: `few.yaml`, prompts with few sentences, and
`texts.safetensors`, made-up text features of the photos' classes. `<!-- has: runs/mine ... -->` anywhere on the page names what
else is there: a key of `test_docs.MAKERS`.
"""

import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LANGUAGES = ("bash", "python")
"""Of the blocks that are run; `text` is output, and is not read."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S)
_COMMENTS_ABOVE = re.compile(r"(?:^ *<!--(?:(?!-->).)*-->\s*\n)+\s*\Z", re.M | re.S)
_OPERATORS = re.compile(r"[|&;<>()]+")
_FIRST_WORDS = ("do", "then", "else", "!", "srun", "time", "nohup")


class Block(NamedTuple):
    """A code block of a page.

    Attributes:
        page: The file.
        line: Of its first line of code, from 1.
        language: What is behind the fence.
        text: The code, as on the page.
        not_run: Why it is only parsed, or None.
        replaced: What the test types in place of what.
        exit_code: That it has to end with.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None
    replaced: tuple[tuple[str, str], ...]
    exit_code: int

    @property
    def place(self) -> str:
        """Page and line, for a message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def as_tested(self) -> str:
        """The code with everything replaced; what is to be replaced must be there."""
        text = self.text
        for old, new in self.replaced:
            assert old in text, f"{self.place}: tested with: {old!r} is not in the block"
            text = text.replace(old, new)
        return text


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        above = _COMMENTS_ABOVE.search(text[: fence.start()])
        comments = above.group() if above else ""
        not_run = re.search(r"<!-- not run: (.+?) -->", comments, re.S)
        exit_code = re.search(r"<!-- exit code: (\d+) -->", comments)
        pairs = [
            pair.split(" -> ")
            for tested in re.findall(r"<!-- tested with: (.+?) -->", comments, re.S)
            for pair in tested.split("; ")
        ]
        found.append(
            Block(
                page,
                text.count("\n", 0, fence.start("text")) + 1,
                fence["language"],
                textwrap.dedent(fence["text"]),
                not_run[1] if not_run else None,
                tuple((old.strip(), new.strip()) for old, new in pairs),
                int(exit_code[1]) if exit_code else 0,
            )
        )
    return found


def has(page: Path) -> set[str]:
    """What else the page's folder has; see the top of this file."""
    return set(" ".join(re.findall(r"<!-- has: (.+?) -->", page.read_text(encoding="utf-8"))).split())


def commands_of(code: str) -> Iterator[list[str]]:
    """The words of each simple command of a bash block: no operators, variables before it or redirections."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not _OPERATORS.fullmatch(word):
                words.append(word)
                continue
            while words and (words[0] in _FIRST_WORDS or re.match(r"\w+=", words[0])):
                words.pop(0)
            if words:
                yield words
            words = []


def tabzoo_arguments(words: Sequence[str]) -> list[str] | None:
    """A command of tabzoo as what stands after `python -m`; None for other programs, and for commands that are cut short."""
    program = Path(words[0]).name
    if "..." in words:
        return None
    if program == "tabzoo":
        return ["tabzoo", *words[1:]]
    if re.fullmatch(r"python[\d.]*|torchrun", program) and "-m" in words:
        rest = list(words[words.index("-m") + 1 :])
        return rest if rest[:1] and rest[0].split(".")[0] == "tabzoo" else None
    return None


def prose_of(page: Path) -> str:
    """The page without code blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.S)


def links_of(page: Path) -> list[str]:
    """The targets of links and pictures that are not on the network."""
    prose = re.sub(r"`[^`\n]*`", "", prose_of(page))
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose)
    return [link for pair in targets for link in pair if link and not re.match(r"https?:|mailto:", link)]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", prose_of(page), re.M)
    return {re.sub(r"[ -]+", "-", re.sub(r"[^\w -]", "", title.lower()).strip()) for title in titles}
