"""The ini dialect of input_config.ini and of the chip files, read with line numbers and nothing lost.

    [SECTION]
    key = item, "item, quoted", item;  # comment

A value ends at its line's end, at `;` or at `#`, whichever comes first; the rest is comment. Spaces outside quotes are
dropped. A value whose line ends with a comma goes on in the next line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sgs.errors import UserError

_SECTION = re.compile(r"\[(?P<name>[^\]]*)\]\s*(?:[;#].*)?")
_ITEM = re.compile(r"""\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^,;#"'][^,;#]*|))\s*""")
_FULL_WIDTH = re.compile("[，；：＝]")


@dataclass
class Entry:
    """One `key = value`. `items` are the comma-separated parts; `key` is in lower case."""

    section: str
    key: str
    line: int
    items: list[str]
    comment: str
    closed: bool  # by a `;`

    @property
    def continues(self) -> bool:
        return not self.closed and len(self.items) > 1 and self.items[-1] == ""


@dataclass(frozen=True)
class Fault:
    """A line that the dialect does not allow."""

    line: int
    reason: str
    remedy: str | None = None


@dataclass
class Document:
    """What a file says: sections by name with the line of their header, entries in order, and faulty lines."""

    sections: dict[str, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_text(path: Path, *, stage: str) -> str:
    """The text of a UTF-8 file, a byte order mark dropped. Raises UserError: missing, unreadable, not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", stage=stage, file=path) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        remedy = "save the file as UTF-8"
        raise UserError("is not UTF-8 text", stage=stage, file=path, node=f"line {line}", remedy=remedy) from error


def parse(text: str) -> Document:
    """Read a whole text; problems are collected as faults, never raised."""
    document = Document()
    section: str | None = None
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        header = _SECTION.fullmatch(line)
        try:
            if header:
                section = header["name"].strip()
                _open_section(document, section, number)
            elif "=" in line:
                _add_entry(document, section, number, line)
            elif document.entries and document.entries[-1].continues:
                last = document.entries[-1]
                items, last.comment, last.closed = split_value(line)
                last.items[-1:] = items
            else:
                raise ValueError("is neither [SECTION] nor key = value")
        except ValueError as error:
            document.faults.append(Fault(number, str(error)))
    return document


def _open_section(document: Document, name: str, number: int) -> None:
    if name in document.sections:
        raise ValueError(f"section [{name}] appears a second time; the first is on line {document.sections[name]}")
    document.sections[name] = number


def _add_entry(document: Document, section: str | None, number: int, line: str) -> None:
    name, _, value = line.partition("=")
    key = name.strip().lower()
    if section is None:
        raise ValueError(f"key {key} comes before the first [SECTION]")
    items, comment, closed = split_value(value)
    document.entries.append(Entry(section, key, number, items, comment, closed))


def split_value(text: str) -> tuple[list[str], str, bool]:
    """The items of a value, the comment behind it, and whether a `;` closed it. Raises ValueError."""
    items: list[str] = []
    position = 0
    while True:
        match = _ITEM.match(text, position)
        assert match is not None  # the pattern also matches nothing
        bare = match["bare"]
        if bare is not None and (odd := _FULL_WIDTH.search(bare)):
            raise ValueError(f"holds the full-width '{odd.group()}'; write the ASCII character, or quote the name")
        items.append("".join(bare.split()) if bare is not None else match["double"] or match["single"] or "")
        position = match.end()
        stop = text[position : position + 1]
        if stop != ",":
            break
        position += 1
    if stop not in ("", ";", "#"):
        raise ValueError("a quote is not closed, or text follows a closed one")
    return items, text[position + 1 :].strip(" \t#;"), stop == ";"
