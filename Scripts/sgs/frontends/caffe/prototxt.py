"""Protocol buffers as text, read by a message's description.

A reader of our own: it says the line of everything, and goes on at a field that the message does not have, which forks
of Caffe are full of, so that all of them can be told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sgs.config.nearest import did_you_mean
from sgs.errors import UserError, raise_all

LONGEST = 16 << 20  # bytes; a prototxt of a thousand layers has half a megabyte
_SKIPPED = "Ignored"  # the message whose fields are not read
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\f\v]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<word>[-+]?[A-Za-z0-9_.][-+A-Za-z0-9_./]*)
    | (?P<mark>[{}<>\[\]:;,])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_TRUE, _FALSE = ("true", "True", "t", "1"), ("false", "False", "f", "0")
_CLOSING = {"{": "}", "<": ">"}


@dataclass(frozen=True)
class Stray:
    """A field that its message does not have. `holder`: the message; `entry`: number of the layer that it stands in,
    counted from 0, None outside of layers."""

    name: str
    line: int
    holder: str
    entry: int | None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "text", "word", "mark", or "end"
    text: str
    line: int


class _Refused(Exception):
    """What is wrong, and on which line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


def read_text(path: Path, content: bytes, message: Any, entries: tuple[str, ...]) -> list[Stray]:
    """Fill a message with what a text says; returns the fields that there is no place for.

    `entries`: the repeated fields of the message that are its layers. Raises UserError for what is no such text, and
    for all values that are not of their field's type.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _error(path, "is not text", "the prototxt is the text file, the caffemodel the one with the weights")
    try:
        reader = _Reader(text, entries)
        reader.fill(message, "")
    except _Refused as error:
        raise _error(path, str(error), "give a prototxt: text in the format of protocol buffers") from error
    raise_all([_error(path, *problem) for problem in reader.problems], stage="convert", file=path)
    return reader.strays


def _error(path: Path, reason: str, remedy: str = "") -> UserError:
    return UserError(reason, stage="convert", file=path, remedy=remedy or None)


class _Reader:
    def __init__(self, text: str, entries: tuple[str, ...]) -> None:
        self.tokens = _tokens(text)
        self.position = 0
        self.entries = entries
        self.entry: int | None = None
        self.found = 0  # entries so far
        self.strays: list[Stray] = []
        self.problems: list[tuple[str, str]] = []

    # -- tokens --------------------------------------------------------------------------------------------------------
    @property
    def here(self) -> _Token:
        return self.tokens[self.position]

    def take(self) -> _Token:
        token = self.here
        self.position += token.kind != "end"
        return token

    def skip(self, *marks: str) -> bool:
        """Pass over a mark, if it stands here."""
        there = self.here.kind == "mark" and self.here.text in marks
        self.position += there
        return there

    # -- messages ------------------------------------------------------------------------------------------------------
    def fill(self, message: Any, closing: str) -> None:
        """Read fields into a message, up to the mark that closes it."""
        opened = self.tokens[self.position - 1].line
        fields = message.DESCRIPTOR.fields_by_name
        while not (closing and self.skip(closing)):
            name = self.take()
            if name.kind == "end":
                if closing:
                    raise _Refused(opened, "what is opened here is never closed")
                return
            if name.kind != "word":
                raise _Refused(name.line, f"the name of a field should stand where {_told(name)} is")
            field = fields.get(name.text)
            outermost = not closing
            if outermost and name.text in self.entries:
                self.entry, self.found = self.found, self.found + 1
            if field is None:
                self.strays.append(Stray(name.text, name.line, message.DESCRIPTOR.name, self.entry))
                self._pass_over()
            elif field.message_type is not None and field.message_type.name == _SKIPPED:
                self._pass_over()
            else:
                self._field(message, field, name)
            if outermost:
                self.entry = None
            self.skip(",", ";")

    def _field(self, message: Any, field: Any, name: _Token) -> None:
        colon = self.skip(":")
        if self.skip("["):
            if not _is_repeated(message, field):
                raise _Refused(name.line, f"{name.text} has one value, not a list")
            while not self.skip("]"):
                self._value(message, field, name)
                self.skip(",")
        elif field.message_type is None and not colon:
            raise _Refused(name.line, f"a ':' should follow {name.text}")
        else:
            self._value(message, field, name)

    def _value(self, message: Any, field: Any, name: _Token) -> None:
        if not _is_repeated(message, field) and message.HasField(field.name):
            self.problems.append((f"line {name.line}: {name.text} is given twice", "keep one of them"))
        token = self.take()
        if field.message_type is not None:
            if token.text not in _CLOSING or token.kind != "mark":
                raise _Refused(token.line, f"{{ should follow {name.text}, not {_told(token)}")
            held = getattr(message, field.name)
            repeated = _is_repeated(message, field)
            if not repeated:
                held.SetInParent()
            self.fill(held.add() if repeated else held, _CLOSING[token.text])
            return
        if token.kind not in ("text", "word"):
            raise _Refused(token.line, f"a value of {name.text} should stand where {_told(token)} is")
        try:
            self._set(message, field, self._scalar(field, token))
        except ValueError as error:
            remedy = did_you_mean(token.text, list(field.enum_type.values_by_name)) if field.enum_type else ""
            self.problems.append((f"line {token.line}: {name.text}: {error}", remedy))

    def _set(self, message: Any, field: Any, value: Any) -> None:
        if _is_repeated(message, field):
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def _scalar(self, field: Any, token: _Token) -> Any:
        """A value of a field. Raises ValueError."""
        kind = field.cpp_type
        if kind == field.CPPTYPE_STRING:
            return self._string(token)
        if token.kind == "text":
            raise ValueError(f"{token.text} is text")
        if kind == field.CPPTYPE_ENUM:
            known = field.enum_type.values_by_name
            if token.text in known:
                return known[token.text].number
            if token.text.isdecimal() and int(token.text) in field.enum_type.values_by_number:
                return int(token.text)
            raise ValueError(f"there is no {token.text}; there are {', '.join(known)}")
        if kind == field.CPPTYPE_BOOL:
            if token.text not in (*_TRUE, *_FALSE):
                raise ValueError(f"{token.text} is neither true nor false")
            return token.text in _TRUE
        if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            return _real(token.text)
        return _whole(token.text, kind in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64), 32)

    def _string(self, token: _Token) -> str:
        """A text, or several that stand behind each other; a word is one too."""
        parts = [_unquoted(token.text) if token.kind == "text" else token.text]
        while token.kind == "text" and self.here.kind == "text":
            parts.append(_unquoted(self.take().text))
        return "".join(parts)

    def _pass_over(self) -> None:
        """Skip the value of a field, whatever it is."""
        self.skip(":")
        opened, depth = self.here, 0
        while True:
            token = self.take()
            if token.kind == "end":
                raise _Refused(opened.line, "what is opened here is never closed")
            if token.kind == "mark":
                depth += (token.text in "{<[") - (token.text in "}>]")
                if depth < 0 or (depth == 0 and token.text not in "}>]"):
                    raise _Refused(token.line, f"a value should stand where {_told(token)} is")
            if depth == 0:
                break
        while token.kind == "text" and self.here.kind == "text":
            self.take()


def _is_repeated(message: Any, field: Any) -> bool:
    return hasattr(getattr(message, field.name), "extend")  # descriptors say it otherwise in every protobuf


def _told(token: _Token) -> str:
    return "the end of the file" if token.kind == "end" else f"'{token.text[:40]}'"


def _tokens(text: str) -> list[_Token]:
    tokens, line, position = [], 1, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _Refused(line, f"{text[position : position + 20]!r} means nothing here")
        kind = str(match.lastgroup)
        if kind == "newline":
            line += 1
        elif kind != "space":
            tokens.append(_Token(kind, match[0], line))
        position = match.end()
    tokens.append(_Token("end", "", line))
    return tokens


def _unquoted(text: str) -> str:
    """The value of a text: its escapes are bytes of UTF-8. Raises ValueError."""

    def byte(match: re.Match[str]) -> str:
        octal, hexadecimal, letter = match.groups()
        if letter:
            return _ESCAPED.get(letter, letter)
        return chr(0xDC00 + (int(octal, 8) if octal else int(hexadecimal, 16)) % 256)

    plain = _ESCAPE.sub(byte, text[1:-1])
    loose = b"".join(
        bytes([ord(c) - 0xDC00]) if 0xDC00 <= ord(c) < 0xDD00 else c.encode("utf-8", "surrogatepass") for c in plain
    )
    return loose.decode("utf-8")


def _real(text: str) -> float:
    value = float(text[:-1] if text[-1:] in "fF" and not text.lower().endswith("inf") else text)
    if not (isfinite(value) and abs(value) < 3.4e38):
        raise ValueError(f"{text} is not a number of 32 bits")
    return value


def _whole(text: str, unsigned: bool, bits: int) -> int:
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits.startswith("0") and digits.isdecimal()
    try:
        value = int(text[:40], 8 if octal else 0)
    except ValueError as error:
        raise ValueError(f"{text[:40]} is not a whole number") from error
    low, high = (0, 2**bits) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    if not low <= value < high:
        raise ValueError(f"{text[:40]} is not within {low} and {high - 1}")
    return value
