"""Output files: complete or not there at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sgs.errors import UserError

STAGE = "output"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_output(path: str | Path) -> Path:
    """The file that writing to `path` would write, links followed. For tools to call before long work.

    Raises:
        UserError: the folder is missing or cannot be written to, or `path` is there and not a regular file.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "not a regular file"
        raise UserError(f"cannot be written: it is {kind}", stage=STAGE, file=path, remedy="name a file")
    if not target.parent.is_dir():
        raise UserError(f"its folder {target.parent} does not exist", stage=STAGE, file=path, remedy="create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        reason = f"its folder {target.parent} cannot be written to"
        raise UserError(reason, stage=STAGE, file=path, remedy="choose another folder, or change its permissions")
    return target


def make_folder(path: str | Path) -> Path:
    """A folder for results, made where there is none; its own folder must be there.

    Raises:
        UserError: it cannot be made, or `path` is there and no folder.
    """
    path = Path(path)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError("is not a folder", stage=STAGE, file=path, remedy="name a folder, or one that can be made")
    check_output(path)
    try:
        path.mkdir()
    except OSError as error:
        raise UserError(f"the folder cannot be made: {error.strerror}", stage=STAGE, file=path) from error
    return path


@contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside `path` to write to; it takes that name when the block ends without an exception.

    On an exception nothing is left behind, and what was at `path` before is untouched.

    Raises:
        UserError: as `check_output`; the disk is full.
    """
    target = check_output(path)
    temporary = target.parent / f".sgs-{secrets.token_hex(8)}{target.suffix}"
    try:
        # Not by mkstemp: its files stay readable for their owner only; here the umask applies.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", stage=STAGE, file=path) from error
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"cannot be written: {error.strerror}", stage=STAGE, file=path) from error
        raise
    except UserError as error:
        if error.file == str(temporary):  # a writer that itself writes by `atomic_output`
            raise UserError(error.reason, stage=error.stage, file=path, remedy=error.remedy) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def atomic_outputs(*paths: str | Path) -> Iterator[list[Path]]:
    """`atomic_output` of files that belong together: none takes its name before all are written."""
    with ExitStack() as stack:
        yield [stack.enter_context(atomic_output(path)) for path in paths]


def write_result(path: Path, data: bytes) -> None:
    """Write one of many small files whose names come from the user's: `atomic_output`, where any error is his.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with atomic_output(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", stage=STAGE, file=path) from error
