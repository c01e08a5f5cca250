"""Text from outside (names of files, classes and tensors, values of fields) made safe for terminals, tables and paths."""

import dataclasses
import hashlib
import json
import logging
import re

__all__ = ["PlainFormatter", "for_lines", "for_path", "for_sheet", "for_table", "for_terminal", "plain_json"]

# C0, DEL and C1 controls, marks that turn the direction of text, line and paragraph separators, lone surrogates.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[{_UNSAFE}]")
# Windows takes no name that ends with a dot or a blank.
_NOT_IN_A_NAME = re.compile(rf'[{_UNSAFE}/\\:*?"<>|]|^\.+|[. ]+\Z')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.DOTALL)
_MARK = re.compile(r"~[0-9a-f]{12}\Z")
_LONGEST = 100
# What makes a cell a formula, also in the full width of East Asian keyboards.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def for_terminal(text: str) -> str:
    r"""The text in one line that moves no cursor: control characters as `\n`, `\x1b` or `\u202e`, the rest as it is."""
    return _CONTROL.sub(_escape, text)


def for_lines(text: str) -> str:
    """As `for_terminal`, for a message of several lines: line ends stay."""
    return "\n".join(map(for_terminal, text.split("\n")))


class PlainFormatter(logging.Formatter):
    """Log messages as `for_lines` has them."""

    def format(self, record: logging.LogRecord) -> str:
        """The record in plain text."""
        return for_lines(super().format(record))


def plain_json(content: object) -> str:
    r"""Indented JSON for people, which keeps letters of any script and has everything that is not a letter as `\u202e`."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=dataclasses.asdict)
    return "\n".join(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in text.split("\n"))


def for_table(text: str) -> str:
    r"""As `for_terminal`, for a cell of a Markdown table: `|` becomes `\|`."""
    # Backslashes before a bar are doubled: a parser may take two of them for one, and the bar behind them for a border.
    return re.sub(r"(\\*)\|", r"\1\1\|", for_terminal(text))


def for_sheet(text: str) -> str:
    """As `for_terminal`, for a cell of CSV: a text that a spreadsheet would compute as a formula begins with an apostrophe."""
    return f"'{shown}" if (shown := for_terminal(text)).lstrip().startswith(_FORMULA) else shown


def for_path(name: str) -> str:
    """A name as one component of a path, on any system; an ordinary name is left as it is.

    Distinct names stay distinct: a changed one ends with `~` and twelve hexadecimal digits of the name's SHA-256.

    Returns:
        1 to 100 bytes of UTF-8.
    """
    changed = _NOT_IN_A_NAME.search(name) or _RESERVED.fullmatch(name) or _MARK.search(name)
    if name and not changed and _cut(name, _LONGEST) == name:
        return name
    digits = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    stem = _NOT_IN_A_NAME.sub("_", name)
    stem = f"_{stem}" if _RESERVED.fullmatch(stem) else stem
    return f"{_cut(stem, _LONGEST - 13)}~{digits}"


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _cut(text: str, size: int) -> str:
    """As much of a text as this many bytes of UTF-8 hold."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")
