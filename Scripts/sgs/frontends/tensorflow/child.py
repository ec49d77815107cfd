"""The process in which TensorFlow runs. TensorFlow writes to standard output and error as it likes, keeps its memory,
and stops the process that it runs in for some damaged files; so it gets a process of its own.

The process runs `main` with request and answer, both of them files in a folder that goes away.
"""

from __future__ import annotations

import logging
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from sgs.errors import UserError
from sgs.frontends.model_file import refused
from sgs.frontends.onnx_layout import SourceLayout
from sgs.frontends.onnx_model import SourceModel, normalised
from sgs.frontends.own_process import command_of, environment
from sgs.frontends.platforms import Asked

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A model that is to become ONNX; `values` are those of the platform's options."""

    platform: str
    path: Path
    values: Mapping[str, Any]
    asked: Asked


@dataclass(frozen=True)
class Answer:
    """The ONNX model, the layouts of its rank-4 inputs and outputs where TensorFlow's are known, and what was noticed
    on the way, each a line."""

    model: bytes
    layouts: Mapping[str, SourceLayout]
    notes: tuple[str, ...] = ()


def in_child(request: Request, digest: str) -> SourceModel:
    """The model that a process of its own makes. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="sgs_tensorflow_") as folder:
        asked, answered = Path(folder, "request"), Path(folder, "answer")
        asked.write_bytes(pickle.dumps(request))
        done = subprocess.run(
            command_of(__name__, str(asked), str(answered)),
            env=variables(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        said = done.stderr.decode("utf-8", "replace").strip()
        if not answered.is_file():
            raise _stopped(request.path, done.returncode, said)
        answer = pickle.loads(answered.read_bytes())
    if isinstance(answer, UserError):
        raise answer from RuntimeError(f"in the process of TensorFlow:\n{said}")
    return model_of(answer, request.path, digest)


def model_of(answer: Answer, path: Path, digest: str) -> SourceModel:
    """The model in an answer. The log says what was noticed."""
    for note in answer.notes:
        _log.info("%s: %s", path, note)
    return replace(normalised(ModelProto.FromString(answer.model), path, digest), layouts=answer.layouts)


def variables(home: str) -> dict[str, str]:
    """The environment in which TensorFlow is quiet, uses the processor alone and leaves the user's folders alone."""
    return {
        **environment(),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": home,
    }


def _stopped(path: Path, code: int, said: str) -> Exception:
    """What to raise where there is no answer: where TensorFlow was stopped the file is at fault, else we are."""
    last = (said.splitlines() or ["no message"])[-1][:300]
    if code >= 0:
        return RuntimeError(f"in the process of TensorFlow, which ended with code {code}:\n{said}")
    reason = f"TensorFlow was stopped by {signal.Signals(-code).name}: {last}"
    remedy = "the file is damaged, or memory ran out: save or download the model again, or use a larger machine"
    return refused(path, reason, remedy)


def _bare(error: UserError) -> UserError:
    """The error without what led to it, which some packages teach pickle to take along, with objects of TensorFlow."""
    for one in (error, *getattr(error, "problems", ())):
        one.__cause__ = one.__context__ = one.__traceback__ = None
    return error


def main() -> None:
    """The process itself."""
    asked, answered = map(Path, sys.argv[1:])
    from sgs.frontends.tensorflow.convert import convert

    request = pickle.loads(asked.read_bytes())
    try:
        answer: Answer | UserError = convert(request)
    except UserError as error:
        logging.getLogger(__name__).error("", exc_info=error)
        answer = _bare(error)
    answered.write_bytes(pickle.dumps(answer))
