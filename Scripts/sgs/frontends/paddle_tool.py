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
from sgs.errors import UserError
from sgs.frontends.onnx_model import read_message

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
_OPERATOR = re.compile(rb'"#":"[1-9]\.(\w+)","A":')  # where an operator begins in a .json, before its attributes
_DOUBLE = re.compile(_OPERATOR.pattern + rb'|"#":"0\.a_f64"')


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
        if model.suffix == ".json":
            source = "model.json"
            (folder / source).write_bytes(_with_plain_floats(model.read_bytes()))
        else:
            source = "model.pdmodel"
            (folder / source).symlink_to(model.absolute())
        command = [str(tool), "--model_dir", ".", "--model_filename", source, "--save_file", "model.onnx", *options]
        command += ["--optimize_tool", "None"]  # the others download packages while they run
        if params is not None:
            (folder / "model.pdiparams").symlink_to(params.absolute())
            command += ["--params_filename", "model.pdiparams"]
        _log.info("running %s on %s", tool, model)
        code, told = _run(command, folder)
        made = folder / "model.onnx"
        if code or _faults(told) or not made.is_file():
            raise _failure(model, code, told)
        try:
            return read_message(made)[0]
        except UserError as error:
            raise _failure(model, code, [f"what it wrote {error.reason}"]) from error


def _with_plain_floats(content: bytes) -> bytes:
    """A .json model with attributes of type float in place of double.

    Paddle 3.3 writes the slope of a leaky ReLU, the epsilon of a group normalisation, the value of a padding and others
    as doubles; paddle2onnx up to 2.1 takes them for 0 without a word, or stops. Constants ("full") have always been
    doubles, and are read as such.
    """
    operator = b""

    def plain(match: re.Match[bytes]) -> bytes:
        nonlocal operator
        operator = match[1] or operator
        return match[0] if match[1] or operator.startswith(b"full") else b'"#":"0.a_f32"'

    return _DOUBLE.sub(plain, content)


def _run(command: Sequence[str], folder: Path) -> tuple[int, list[str]]:
    """(exit code, lines told) of the program in a folder, which holds its temporary files, too."""
    environment = {**os.environ, "TMPDIR": str(folder)}
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
        return f"it does not say which; the network has {listing(_operators(model), 60)}"
    return "check the model and its parameter file, or save them again; --show_log -v shows all that it told"


def _operators(model: Path) -> list[str]:
    """The kinds of operators in a .json model."""
    found = set(_OPERATOR.findall(model.read_bytes())) if model.suffix == ".json" else set()
    return sorted(name.decode() for name in found - {b"data", b"fetch"})
