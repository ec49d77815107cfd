"""The commands of a frame as a trace for chrome://tracing and Perfetto: a thread for every engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sgs.compile.cost import ENGINES
from sgs.config.chips import Chip
from sgs.img.image import Compute, Dma, Image, Kernel
from sgs.ir.graph import Node, Tensor
from sgs.registry import COST, Cost
from sgs.report.compile import busy_cycles, engine_of
from sgs.report.memory import moved_bytes, moved_tensors

THREADS = {"mac": "MAC array", "vector": "vector unit", "dma": "DMA engine"}
_PROCESS = 1


def trace_text(image: Image, chip: Chip) -> str:
    """JSON of one event (ph X) for every command of one frame, times in microseconds, and the names of the threads.

    An event lasts as long as its engine is busy. The latency of a transfer's last bytes, in which the engine is at work
    on the next one already, is among its arguments.
    """
    program = image.programs[0]
    work = [kernel_work(image, kernel) for kernel in image.kernels]
    tensors = moved_tensors(image, program)
    events = [_named("process_name", 0, f"{image.model_name or 'network'} on {chip.name}")]
    events += [_named("thread_name", number, THREADS[engine]) for number, engine in enumerate(ENGINES, 1)]
    microseconds = 1e6 / chip.clock_hz
    for command, moved in zip(program.commands, tensors, strict=True):
        engine, busy = engine_of(image, command), busy_cycles(command, chip)
        layer = image.layers[command.layer]
        name = moved.name if moved else ""
        done = _computed(command, work) if isinstance(command, Compute) else _moved(command, name, busy)
        events.append(
            {
                "ph": "X",
                "pid": _PROCESS,
                "tid": ENGINES.index(engine) + 1,
                "name": layer.name,
                "cat": engine,
                "ts": round(command.start * microseconds, 6),
                "dur": round(busy * microseconds, 6),
                "args": {"operator": layer.opcode, "cycle": command.start, "cycles": busy, **done},
            }
        )
    record = {"displayTimeUnit": "ns", "otherData": {"clock_hz": chip.clock_hz}, "traceEvents": events}
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def kernel_work(image: Image, kernel: Kernel) -> Cost:
    """The work of one run of a kernel. Raises UnsupportedOperator for an operator without a cost rule."""
    operands, results = ([_tensor(image, number) for number in side] for side in (kernel.inputs, kernel.outputs))
    names = [None if operand is None else operand.name for operand in operands]
    made = [result for result in results if result is not None]
    node = Node(kernel.opcode, names, [result.name for result in made], dict(kernel.attrs))
    return COST[kernel.opcode](node, operands, made)


def _tensor(image: Image, number: int) -> Tensor | None:
    if number == -1:
        return None
    ref = image.tensors[number]
    return Tensor(ref.name, ref.shape, ref.dtype, None, ref.quant)


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": _PROCESS, "tid": thread, "name": what, "args": {"name": name}}


def _computed(command: Compute, work: Sequence[Cost]) -> dict[str, Any]:
    done = work[command.kernel]
    return {"macs": done.macs, "vector_ops": done.vector_ops}


def _moved(command: Dma, tensor: str, busy: int) -> dict[str, Any]:
    ends = {"from": command.source.space.name.lower(), "to": command.target.space.name.lower()}
    return {"latency_cycles": command.cycles - busy, "tensor": tensor, "bytes": moved_bytes(command), **ends}
