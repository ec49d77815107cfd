"""paddle2onnx, run as a program: what it asks of other packages clashes with ours in some of its versions, so it is
used wherever it is installed."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto

from sgs.config.nearest import listing
from sgs.errors import UserError, gathered, raise_all
from sgs.frontends.onnx_model import read_message
from sgs.frontends.paddle_json import kinds, readable

_log = logging.getLogger(__name__)
VARIABLE = "SGS_PADDLE2ONNX"  # of the environment: the program
INSTALL = (
    "install it in an environment of its own, python3 -m venv ~/paddle && ~/paddle/bin/pip install "
    f"paddle2onnx paddlepaddle packaging setuptools, and name it: export {VARIABLE}=~/paddle/bin/paddle2onnx"
)
_CAUSES = 5  # lines
_CAUSE_LENGTH = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FAULT = re.compile(r".*\[ERROR\](?:\[Paddle2ONNX\])?\s*(.*)")  # of the program's own log
_TOLD = re.compile(r"\[Paddle2ONNX\]\s+(.+)")
_PROGRESS = re.compile(
    r"Start parsing|Use opset_version|PaddlePaddle model is exported|Load PaddlePaddle|.* file path:"
)
_RAISED = re.compile(r"(?:[\w.]*(?:Error|Exception)\b: |.*: error: ).+")  # the last line of Python, and of argparse


def find_tool() -> Path:
    """The program: the one that the environment variable names, else the one beside this Python, else that of PATH.

    Raises UserError where there is none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(Path(named).expanduser())
        if found is None:
            raise UserError("is not a program", stage="convert", file=named, node=f"${VARIABLE}", remedy=INSTALL)
        return Path(found).absolute()
    found = shutil.which("paddle2onnx", path=str(Path(sys.executable).parent)) or shutil.which("paddle2onnx")
    if found is None:
        raise UserError("the program paddle2onnx is not installed", stage="convert", remedy=INSTALL)
    return Path(found).absolute()


def translate(model: Path, params: Path | None, options: Sequence[str]) -> ModelProto:
    """What paddle2onnx makes of a model file and its parameters, with more `options` of its command line.

    It sees the two under plain names in a temporary folder, where everything that it writes stays: it looks for the
    parameters of an old model under the model's own name whatever it is told, and names are all that it goes by. Raises
    UserError with the causes that it tells.
    """
    tool = find_tool()
    with tempfile.TemporaryDirectory(prefix="sgs_paddle_") as name:
        folder = Path(name)
        if params is not None:
            (folder / "model.pdiparams").symlink_to(params.absolute())

        def run_on(source: Path) -> ModelProto:
            return _translate(tool, source.relative_to(folder), folder, model, options)

        if model.suffix == ".json":
            content = model.read_bytes()
            (folder / "model.json").write_bytes(readable(content, model) or content)
            return run_on(folder / "model.json")
        (folder / "model.pdmodel").symlink_to(model.absolute())
        made: list[ModelProto] = []
        problems = gathered(lambda: made.append(run_on(folder / "model.pdmodel")))
        for newer in folder.glob("*/model_pt.json"):  # what it translated the model to, to read that
            better = readable(newer.read_bytes(), model)
            if better is not None:
                newer.write_bytes(better)
                return run_on(newer)
        raise_all(problems, stage="convert", file=model)
        return made[0]


def _translate(tool: Path, source: Path, folder: Path, model: Path, options: Sequence[str]) -> ModelProto:
    """What the program makes of a `source` in a folder, with the parameters beside it; messages name the `model`."""
    command = [str(tool), "--model_dir", ".", "--model_filename", str(source), "--save_file", "model.onnx", *options]
    command += ["--optimize_tool", "None"]  # the others download packages while they run
    params = source.with_suffix(".pdiparams")
    if (folder / params).exists():
        command += ["--params_filename", str(params)]
    _log.info("running %s on %s", tool, model)
    code, told = _run(command, folder)
    made = folder / "model.onnx"
    if code or _faults(told) or not made.is_file():
        raise _failure(model, code, told)
    try:
        return read_message(made)[0]
    except UserError as error:
        raise _failure(model, code, [f"what it wrote {error.reason}"]) from error


def _run(command: Sequence[str], folder: Path) -> tuple[int, list[str]]:
    """(exit code, lines told) of the program in a folder, which holds its temporary files, too."""
    environment = {**os.environ, "TMPDIR": str(folder), "P2O_KEEP_TEMP_MODEL": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as error:  # of another machine, or its interpreter is gone
        reason = f"cannot be run: {error.strerror}"
        raise UserError(reason, stage="convert", file=command[0], remedy=INSTALL) from error
    lines = [line.strip() for line in _COLOURS.sub("", done.stdout.decode(errors="replace")).splitlines()]
    told = [line for line in lines if line]
    _log.debug("paddle2onnx ended with %d and told\n%s", done.returncode, "\n".join(told))
    return done.returncode, told


def _faults(told: Sequence[str]) -> list[str]:
    """The errors in what was told."""
    found = []
    for index, line in enumerate(told):
        match = _FAULT.fullmatch(line)
        if match and match[1]:
            rest = told[index + 1 :] if match[1].endswith(":") else ()
            found.append(" ".join([match[1], *(_raised(rest) or rest)[:1]]))
    return found


def _raised(told: Sequence[str]) -> list[str]:
    return [line for line in told if _RAISED.fullmatch(line)]


def _failure(model: Path, code: int, told: Sequence[str]) -> UserError:
    """The error of a run that failed."""
    causes = _faults(told)
    if causes:
        hints = [match[1] for line in told if (match := _TOLD.fullmatch(line)) and not _FAULT.fullmatch(line)]
        causes = [hint for hint in hints if not _PROGRESS.match(hint)] + causes
    else:
        causes = _raised(told)[-1:] or list(told[-1:])
    number = -code if code < 0 else code - 128  # a shell says 128 + n of a program that signal n ended
    if number in signal.valid_signals():
        causes = [*causes, f"signal {number} ({signal.strsignal(number)}) ended it"]
    causes = [cause[:_CAUSE_LENGTH].rstrip(".") for cause in dict.fromkeys(causes)]
    reason = f"paddle2onnx failed: {'; '.join(causes[:_CAUSES]) or 'without a word'}"
    return UserError(reason, stage="convert", file=model, remedy=_remedy(model, reason))


def _remedy(model: Path, reason: str) -> str:
    for sign, remedy in (
        ("unrecognized arguments", f"it is older than 2.0; {INSTALL}"),
        ("No module named", INSTALL),
        ("import paddle", INSTALL),
        ("paddlepaddle version", INSTALL),
        ("pset", "choose another with --opset_version"),
        ("Model checker", "is the parameter file that of this model, and whole?"),
    ):
        if sign in reason:
            return remedy
    if "unsupported operators" in reason:
        return f"it does not say which; the network has {listing(kinds(model.read_bytes()), 60)}"
    return "check the model and its parameter file, or save them again; --show_log -v shows all that it told"
