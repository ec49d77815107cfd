"""The frame of a report: one HTML page that needs nothing beside it, of sections, headline figures and tables that can
be searched and sorted. With the browser's scripts off everything is still there to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Generic, TypeVar

from sgs.report.page_style import SCRIPT, STYLE

Row = TypeVar("Row")
DASH = "–"

# Nothing may be fetched from anywhere, whatever a name in the network says; pictures are in the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading; `body` is HTML."""

    heading: str
    body: str

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.heading.lower()).strip("-")


def document(title: str, introduction: str, parts: Sequence[Section | str]) -> str:
    """The page: a heading, a line below it (HTML), links to the sections, and the parts: sections, or HTML."""
    sections = [part for part in parts if isinstance(part, Section)]
    links = " ".join(f'<a href="#{part.anchor}">{escape(part.heading)}</a>' for part in sections)
    pieces = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style>\n</head>\n<body>",
        '<a class="skip" href="#main">Skip to the report</a>',
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="soft">{introduction}</p>\n'
        f'<nav aria-label="Sections">{links}</nav>\n</header>\n<main id="main" tabindex="-1">',
        *(_written(part) if isinstance(part, Section) else part for part in parts),
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(pieces)


def _written(section: Section) -> str:
    heading = f'<h2 id="{section.anchor}">{escape(section.heading)}</h2>'
    return f"<section>\n{heading}\n{section.body}\n</section>"


# -- pieces of sections ------------------------------------------------------------------------------------------------
def paragraph(words: str) -> str:
    """Plain words as a paragraph."""
    return f"<p>{escape(words)}</p>"


def framed(label: str, content: str) -> str:
    """HTML in a box that scrolls where the window is narrower; `label` is what screen readers say."""
    return f'<div class="wide" tabindex="0" role="group" aria-label="{escape(label)}">{content}</div>'


def folded(label: str, content: str) -> str:
    """HTML behind a line that opens it."""
    return f"<details>\n<summary>{escape(label)}</summary>\n{content}\n</details>"


def key(kind: str, words: str) -> str:
    """An entry of a chart's legend; `kind` is a class of the style sheet."""
    first, space, rest = escape(words).partition(" ")
    return f'<span class="line"><span class="key {kind}"></span>{first}</span>{space}{rest}'


def tiles(figures: Iterable[tuple[str, str, str]]) -> str:
    """Headline figures: (what it is, figure, small print)."""
    cells = (
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for label, value, more in figures
    )
    return '<dl class="tiles">\n' + "\n".join(cells) + "\n</dl>"


def facts_table(label: str, rows: Iterable[Sequence[str]]) -> str:
    """Rows of a name and what there is to say about it."""
    lines = (
        f'<tr><th scope="row" class="t">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return framed(label, '<table class="facts"><tbody>' + "\n".join(lines) + "</tbody></table>")


def percent(share: float | None, digits: int = 1) -> str:
    """A share in words."""
    return DASH if share is None else f"{share:.{digits}%}"


# -- tables ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table: its heading, the cell of a row, that of the last row, which is for all of them. `words`: it
    holds words, which is what the search looks at; `name`: it names the row, and stays in view; `hint`: what the
    heading means."""

    heading: str
    cell: Callable[[Row], str]
    total: str = ""
    words: bool = False
    name: bool = False
    hint: str = ""

    @property
    def kind(self) -> str:
        kinds = ["t"] * (self.words or self.name) + ["name"] * self.name
        return f' class="{" ".join(kinds)}"' if kinds else ""

    @property
    def head(self) -> str:
        hint = f' title="{escape(self.hint)}"' if self.hint else ""
        return f'<th scope="col"{self.kind}{hint}><button type="button">{escape(self.heading)}</button></th>'

    def written(self, words: str) -> str:
        shown = escape(words)
        if self.name:
            return f'<th scope="row"{self.kind} title="{shown}">{shown}</th>'
        return f"<td{self.kind}>{shown}</td>"


def table(
    identity: str, label: str, columns: Sequence[Column[Row]], rows: Sequence[Row], *, placeholder: str, counted: str
) -> str:
    """A table with a search above it. Row n has the id `<identity>-<n>`; `counted` says what rows are."""
    count = f"{len(rows)} of {len(rows)} {counted}"
    lines = (
        f'<tr id="{identity}-{n}">{"".join(column.written(column.cell(row)) for column in columns)}</tr>'
        for n, row in enumerate(rows)
    )
    totals = "".join(column.written(column.total) for column in columns)
    foot = f"<tfoot>\n<tr>{totals}</tr>\n</tfoot>" if any(column.total for column in columns) else ""
    return "\n".join(
        [
            f'<div class="listing" data-counted="{escape(counted)}">',
            f'<div class="search"><label for="{identity}-find">Search</label>'
            f'<input id="{identity}-find" type="search" placeholder="{escape(placeholder)}">'
            f'<span class="count soft" role="status">{count}</span></div>',
            f'<div class="wide table" tabindex="0" role="group" aria-label="{escape(label)}">',
            f'<table id="{identity}"><thead><tr>{"".join(column.head for column in columns)}</tr></thead><tbody>',
            *lines,
            f"</tbody>{foot}</table></div>\n</div>",
        ]
    )
