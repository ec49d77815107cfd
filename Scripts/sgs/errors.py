"""The one exception root of the toolchain.

Every error that a user can cause is a `UserError`: it is built from facts (what stage, which file, which node, why, and
what to do) and renders as one line. Anything else that escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

NODES_NAMED = 4  # of those with the same problem


class SgsError(Exception):
    """Root of all errors raised on purpose. `exit_code` is what a program that stops for it returns."""

    exit_code = 1


class UserError(SgsError):
    """The user's input is at fault.

    Args:
        reason: what is wrong, without a trailing full stop.
        stage: the step of the toolchain that noticed ("convert", "calibrate", "input_config" ...).
        file: the file at fault.
        node: the node, tensor, key or line at fault.
        remedy: what the user can do about it.
    """

    exit_code = 2

    def __init__(
        self,
        reason: str,
        *,
        stage: str | None = None,
        file: object | None = None,
        node: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.reason = reason
        self.stage = stage
        self.file = None if file is None else str(file)
        self.node = node
        self.remedy = remedy
        super().__init__(self.render())

    def render(self) -> str:
        """The facts as one line: `stage: file: node: reason (remedy)`."""
        return _line((self.stage, self.file, self.node), self.reason, self.remedy)


def _line(where: Iterable[str | None], reason: str, remedy: str | None) -> str:
    tail = f" ({remedy})" if remedy else ""
    return ": ".join([*filter(None, where), reason]) + tail


def _items(problems: Iterable[UserError], stage: str | None, file: str | None) -> Iterator[str]:
    """A line per problem, one for many that differ in the node alone; stage and file only where they are not the ones
    given."""
    alike: dict[tuple[str | None, ...], list[str | None]] = {}
    for problem in problems:
        nodes = alike.setdefault((problem.stage, problem.file, problem.reason, problem.remedy), [])
        if problem.node not in nodes:
            nodes.append(problem.node)
    for (its_stage, its_file, reason, remedy), nodes in alike.items():
        where = () if (its_stage, its_file) == (stage, file) else (its_stage, its_file)
        if len(nodes) > NODES_NAMED:
            more = f" and {len(nodes) - NODES_NAMED} more"
            nodes = [", ".join(node or "?" for node in nodes[:NODES_NAMED]) + more]
        yield from ("  - " + _line((*where, node), reason or "", remedy) for node in nodes)


class Problems(UserError):
    """Several problems of one file, reported together. `problems` holds them in the order found."""

    def __init__(self, problems: Iterable[UserError], *, stage: str | None = None, file: object | None = None) -> None:
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("Problems needs at least one problem")
        count = len(self.problems)
        head = f"{count} problems" if count > 1 else "1 problem"
        known = None if file is None else str(file)
        super().__init__("\n".join([head, *_items(self.problems, stage, known)]), stage=stage, file=file)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), stage=self.stage, file=self.file), (self.problems,), self.__dict__


OPERATOR_LIST = "docs/OPERATORS.md lists the operators that there are, and their limits"


class UnsupportedOperator(UserError):
    """An operator, or one of its forms, that a table of the toolchain has no row for."""


class NeedsConstant(UnsupportedOperator):
    """An operator that takes one of its operands as a constant only, where the network computes it: `operand`."""

    operand = ""


def gathered(*checks: Callable[[], object]) -> list[UserError]:
    """The problems that checks raise, all of them run."""
    problems: list[UserError] = []
    for check in checks:
        try:
            check()
        except Problems as error:
            problems += error.problems
        except UserError as error:
            problems.append(error)
    return problems


def raise_all(problems: list[UserError], *, stage: str | None = None, file: object | None = None) -> None:
    """Raise nothing for an empty list, the error itself for one, `Problems` for several."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems, stage=stage, file=file)
