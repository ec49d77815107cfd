"""A model after onnxsim, which is native code that has been seen to crash, to hang and to take all memory: it runs in a
process of its own, with limits of time and memory, and whatever happens to it is a warning.

The process runs `main` with before.onnx, after.onnx and a number of bytes.
"""

from __future__ import annotations

import importlib.util
import logging
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from sgs.errors import UserError
from sgs.frontends.onnx_external import with_values
from sgs.frontends.onnx_model import Port, SourceModel, fix_shapes, normalised
from sgs.frontends.own_process import command_of, environment

SECONDS = 120.0
MEMORY = 8 << 30  # bytes of address space
LARGEST_MODEL = 1 << 30  # bytes; onnxsim needs several copies, all in messages of at most 2 GiB
_log = logging.getLogger(__name__)


def simplified(
    source: SourceModel,
    ports: Sequence[Port],
    time_limit: float = SECONDS,
    memory_limit: int = MEMORY,
    largest_model: int = LARGEST_MODEL,
) -> SourceModel | None:
    """The model after onnxsim at the ports' shapes; None, with a warning in the log, when there is none."""
    try:
        return _simplified(source, ports, time_limit, memory_limit, largest_model)
    except _Failed as failure:
        _log.warning("%s; the model is imported as it is", failure)
        return None


class _Failed(Exception):
    """Why there is no simplified model."""


def _simplified(
    source: SourceModel, ports: Sequence[Port], time_limit: float, memory_limit: int, largest_model: int
) -> SourceModel:
    if importlib.util.find_spec("onnxsim") is None:
        raise _Failed("onnxsim is not installed")
    size = source.proto.ByteSize() + sum(value.nbytes for value in source.external.values())
    whole = with_values(source.proto, source.external) if size <= largest_model else None
    if whole is None:
        raise _Failed(f"the model has {size:,} bytes, too many for onnxsim")
    with tempfile.TemporaryDirectory(prefix="sgs_simplify_") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(fix_shapes(whole, ports).SerializeToString())
        _run_child([str(before), str(after), str(memory_limit)], time_limit)
        return _read(after, source)


def _run_child(arguments: Sequence[str], time_limit: float) -> None:
    try:
        done = subprocess.run(
            command_of(__name__, *arguments),
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=time_limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _Failed(f"onnxsim took longer than {time_limit:.0f} s") from error
    except OSError as error:
        raise _Failed(f"onnxsim could not be started: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        raise _Failed(f"onnxsim ended with code {done.returncode} ({last[:300]})")


def _read(after: Path, source: SourceModel) -> SourceModel:
    """What onnxsim wrote, if it is a model with the same inputs and outputs."""
    try:
        simpler = normalised(ModelProto.FromString(after.read_bytes()), source.path, source.digest)
    except (OSError, DecodeError, ValueError, UserError) as error:
        raise _Failed(f"onnxsim wrote no model: {error}") from error
    for old, new in ((source.inputs, simpler.inputs), (source.outputs, simpler.outputs)):
        if {port.name for port in old} != {port.name for port in new}:
            raise _Failed("onnxsim changed the inputs or outputs")
    return simpler


def main() -> None:
    """The child process."""
    before, after, limit = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load_model(before), check_n=0)
    onnx.save_model(model, after)
