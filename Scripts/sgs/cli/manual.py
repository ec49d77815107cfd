"""What docs/tools/ says of the options of a program, made from its parser."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable
from types import ModuleType

from sgs.cli.program import Parser
from sgs.frontends.platforms import PLATFORMS, platform_named
from sgs.report.markdown import coded, table

Row = tuple[str, str]  # an option with its value, and what it does


def options_text(module: ModuleType) -> str:
    """Every option of a program in Markdown. `module`: of sgs.cli, whose `parser()` has them."""
    parsers = parsers_of(module)
    if list(parsers) == [""]:
        return _table(_rows(parsers[""]))
    where: dict[Row, list[str]] = {}
    for name, parser in parsers.items():
        for row in _rows(parser):
            where.setdefault(row, []).append(name)
    groups: dict[tuple[str, ...], list[Row]] = {tuple(parsers): []}  # first what all have
    for row, names in where.items():
        groups.setdefault(tuple(names), []).append(row)
    return "\n".join(f"### {_heading(names, parsers)}\n\n{_table(rows)}" for names, rows in groups.items())


def parsers_of(module: ModuleType) -> dict[str, Parser]:
    """Platform → options of a program for it; "" stands for none, of programs that can do without one or know none."""
    parser: Parser = module.parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    if not inspect.signature(module.parser).parameters:
        return {"": parser}
    return {"": parser} | {name: module.parser(platform_named(name, stage=parser.prog)) for name in PLATFORMS}


def _heading(names: tuple[str, ...], parsers: Iterable[str]) -> str:
    if names == tuple(parsers):
        return "In any case"
    return ", ".join(f"`{name}`" if name else "No platform" for name in names)


def _table(rows: Iterable[Row]) -> str:
    return table(("option", "what it does"), rows)


def _rows(parser: Parser) -> list[Row]:
    shown = [action for action in parser._actions if action.help not in (argparse.SUPPRESS, None)]
    return [(_name(parser, action), _told(parser, action)) for action in shown if action.dest != "help"]


def _name(parser: Parser, action: argparse.Action) -> str:
    """`-m`, `--model` `SIM`."""
    form = parser._get_formatter()
    value = "" if action.nargs == 0 else form._format_args(action, form._get_default_metavar_for_optional(action))
    flags = coded(action.option_strings)
    return f"{flags} {coded([value])}".strip() if value else flags


def _told(parser: Parser, action: argparse.Action) -> str:
    """The help of an option, whether it is required, and what excludes it."""
    told = _plain(parser._get_formatter()._expand_help(action))
    others = [
        other.option_strings[-1]
        for group in parser._mutually_exclusive_groups
        if action in group._group_actions
        for other in group._group_actions
        if other is not action
    ]
    alone = f"; not beside {coded(others)}" if others else ""
    return f"{'**required:** ' if action.required else ''}{told}{alone}"


def _plain(text: str) -> str:
    """Text whose <angles> and *stars* are no markup, but in `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*])", r"\\\1", part) for part in parts)
