"""What all programs share: exit codes, the form of error messages, and a strict argument parser.

Exit codes: 0 done; 2 the user's input is at fault, or standard output cannot be written (one `error:` message); 1 a
defect of ours (traceback); 130 interrupted; 141 the reader of our output went away.
"""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, NoReturn, TextIO, cast

from sgs.config.nearest import nearest
from sgs.errors import UserError

DEFECT, INTERRUPTED, BROKEN_PIPE = 1, 130, 141


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations, and whose errors are UserErrors naming the nearest option."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        keywords.setdefault("allow_abbrev", False)
        super().__init__(*args, **keywords)

    def error(self, message: str) -> NoReturn:
        raise UserError(message, stage=self.prog, remedy=f"see {self.prog} --help")

    def given(self, argv: Sequence[str]) -> set[str]:
        """Destinations of the options that stand on the command line, whatever their values."""
        words = {word.split("=")[0] for word in argv}
        words |= {word[:2] for word in argv if word[:2] != "--" and word not in self._option_string_actions}
        return {action.dest for action in self._actions if words & set(action.option_strings)}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments = sys.argv[1:] if args is None else list(args)
        self._refuse_empty(arguments)
        if self._subparsers is None:
            self._refuse_unknown(arguments)
        return super().parse_known_args(arguments, namespace)

    def _refuse_empty(self, arguments: Sequence[str]) -> None:
        """Name the options with an empty value, which as a path means the current folder."""
        pairs = zip(["an argument", *arguments], arguments, strict=False)
        empty = [word[:-1] or before for before, word in pairs if not word or (word[:2] == "--" and word[-1] == "=")]
        if empty:
            self.error(f"an empty value for {', '.join(empty)}")

    def _refuse_unknown(self, arguments: Sequence[str]) -> None:
        """Name every unknown option, before argparse complains about the required one that it was meant to be."""
        known = self._option_string_actions
        unknown = []
        for argument in arguments:
            if argument == "--":
                break
            option = argument.split("=")[0]
            if len(option) < 2 or option[0] != "-" or option in known or _is_number(argument):
                continue
            if not option.startswith("--") and option[:2] in known:  # -mmodel.sim
                continue
            closest = nearest(option, (name for name in known if name.startswith("--") == option.startswith("--")))
            unknown.append(f"{option} (did you mean {closest}?)" if closest else option)
        if unknown:
            self.error("unknown option " + ", ".join(unknown))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def run(body: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Run a program and turn how it ends into an exit code.

    Args:
        body: the program; takes the arguments without the program's name and returns its exit code, None for 0.
        argv: the arguments; None for those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A Chinese file name on an ASCII terminal is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        with redirect_stdout(cast(TextIO, _Output(sys.stdout))):
            code = _exit_code(body, sys.argv[1:] if argv is None else list(argv))
            sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error.render()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if any(_closed(stream) for stream in (sys.stdout, sys.stderr)):
            return BROKEN_PIPE
        return _defect()  # some other pipe, such as a worker process's
    except Exception:
        return _defect()


def _exit_code(body: Callable[[list[str]], int | None], argv: list[str]) -> int:
    try:
        return body(argv) or 0
    except SystemExit as end:  # argparse, after --help
        return end.code if isinstance(end.code, int) else 0 if end.code is None else DEFECT


class _Output:
    """A stream that raises UserError where it cannot be written, on a full disk for one. What tells here is that it was
    this stream: an OSError caught further out may be of any file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # `run` looks into it
            raise
        except OSError as error:
            _discard(self._stream)
            reason = f"cannot be written: {error.strerror or error}"
            raise UserError(reason, file="standard output") from error


def _defect() -> int:
    traceback.print_exc()
    print("error: this is a defect of the toolchain; please report it with the lines above", file=sys.stderr)
    return DEFECT


def _closed(stream: TextIO) -> bool:
    """Whether nobody reads the stream any more; if so it is discarded, and the interpreter can end quietly."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # not a file: a test's buffer
        return False
    watch = select.poll()
    watch.register(number, 0)  # POLLERR is always reported, and for a pipe it means just this
    if not any(event & select.POLLERR for _, event in watch.poll(0)):
        return False
    _discard(stream)
    return True


def _discard(stream: TextIO) -> None:
    """Point a stream at nothing, with what it still holds."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # not a file: a test's buffer
        return
