"""The ini dialect of input_config.ini and of the chip files, read with line numbers and nothing lost.

    [SECTION]
    key = item, "item, quoted", item;  # comment

A value ends at its line's end, at `;` or at `#`, whichever comes first; the rest is comment. Spaces outside quotes are
dropped. A value whose line ends with a comma goes on in the next line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from sgs.errors import UserError

_SECTION = re.compile(r"(?P<head>\[(?P<name>[^\]#;]*)\]?)\s*(?:[;#].*)?")
_ITEM = re.compile(r"""\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^,;#"'][^,;#]*|))\s*""")
_ASCII_OF = dict(zip("，、；：＝＃［］【】“”‘’", ",,;:=#[][]\"\"''", strict=True))  # what Chinese keyboards write
_FULL_WIDTH = re.compile(f"[{''.join(_ASCII_OF)}]")
_AS_ASCII = str.maketrans(_ASCII_OF)
SHOWN = 60  # characters of a value in a message


class Malformed(ValueError):
    """Text that says nothing in this dialect, or nothing for its key: the reason, and what to write instead."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True)
class Entry:
    """One `key = value`. `items` are the comma-separated parts; `key` is in lower case."""

    section: str
    key: str
    line: int
    items: list[str]
    comment: str
    closed: bool  # by a `;`

    @property
    def value(self) -> str:
        """The items as one word, for messages."""
        return shortened(",".join(self.items))

    @property
    def continues(self) -> bool:
        return not self.closed and len(self.items) > 1 and self.items[-1] == ""


@dataclass(frozen=True)
class Fault:
    """A line that the dialect does not allow, with the section and key that it is of, "" for none."""

    line: int
    reason: str
    remedy: str
    section: str = ""
    key: str = ""


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


def shortened(text: str) -> str:
    """Text for a message, of a long one the beginning."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def parse(text: str) -> Document:
    """Read a whole text; problems are collected as faults, never raised."""
    document = Document()
    section = key = ""
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        meant = line.translate(_AS_ASCII)
        header = _SECTION.fullmatch(meant)
        try:
            if header:
                section, key = header["name"].strip(), ""
                _open_section(document, section, number, line[: header.end("head")])
            elif "=" in meant and meant[0] not in "\"'":  # of a quoted name it is a part
                key = meant.partition("=")[0].strip().lower()
                _add_entry(document, section, number, line)
            elif key and document.entries and document.entries[-1].continues:
                _continue_entry(document, document.entries.pop(), line)
            else:
                key = ""
                _refuse_full_width(line)
                reason = f"'{shortened(line)}' is neither [SECTION] nor key = value"
                raise Malformed(reason, "begin comments with #; end a line with a comma where its list goes on")
        except Malformed as error:
            document.faults.append(Fault(number, str(error), error.remedy, section, key))
    return document


def _open_section(document: Document, name: str, number: int, head: str) -> None:
    first = document.sections.setdefault(name, number)
    _refuse_full_width(head)
    if not head.endswith("]"):
        raise Malformed(f"'{head}' is not closed", f"write [{name}]")
    if first != number:
        reason = f"section [{name}] appears a second time; the first is on line {first}"
        raise Malformed(reason, "put its keys under the first one")


def _add_entry(document: Document, section: str, number: int, line: str) -> None:
    name, equals, value = line.partition("=")
    _refuse_full_width(name if equals else line)
    key = name.strip().lower()
    if not section:
        raise Malformed(f"key {key} comes before the first [SECTION]", "put the [SECTION] that it is of above it")
    items, comment, closed = split_value(value)
    document.entries.append(Entry(section, key, number, items, comment, closed))


def _continue_entry(document: Document, entry: Entry, line: str) -> None:
    items, comment, closed = split_value(line)
    document.entries.append(replace(entry, items=[*entry.items[:-1], *items], comment=comment, closed=closed))


def _refuse_full_width(text: str) -> None:
    """Raise Malformed for punctuation that looks like that of the dialect and is not."""
    if odd := _FULL_WIDTH.search(text):
        reason = f"'{shortened(text.strip())}' holds the full-width '{odd.group()}'"
        raise Malformed(reason, f"write the ASCII '{_ASCII_OF[odd.group()]}'; a name that holds it needs quotes")


def needs_quotes(name: str) -> bool:
    """Whether a name would not be read as it is without quotes."""
    try:
        items, comment, closed = split_value(name)
    except Malformed:
        return True
    return items != [name] or bool(comment) or closed or "=" in name


def split_value(text: str) -> tuple[list[str], str, bool]:
    """The items of a value, the comment behind it, and whether a `;` closed it. Raises Malformed."""
    items: list[str] = []
    position = 0
    while True:
        match = _ITEM.match(text, position)
        assert match is not None  # the pattern also matches nothing
        bare = match["bare"]
        _refuse_full_width(bare or "")
        items.append("".join(bare.split()) if bare is not None else match["double"] or match["single"] or "")
        position = match.end()
        stop = text[position : position + 1]
        if stop != ",":
            break
        position += 1
    if stop not in ("", ";", "#"):
        reason = f"'{shortened(text.strip())}': a quote is not closed, or text follows a closed one"
        raise Malformed(reason, "put quotes around a whole name, and commas between names")
    return items, text[position + 1 :].strip(" \t#;"), stop == ";"
