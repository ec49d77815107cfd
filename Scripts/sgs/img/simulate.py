"""The machine that executes an image: its commands and nothing else, on byte arrays of the planned sizes.

Tensors are views of those bytes at the planned offsets, so a plan in which two of them collide gives wrong results here
instead of hiding. A command runs the kernel of its operator that the fixed engine runs, bound straight to the views;
equal commands share one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgs.engine.single import node_session
from sgs.errors import UserError
from sgs.img.image import BatchMode, Command, Image, IoTensor, Placement, Program, Space
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.nibbles import unpack_nibbles
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import HOST, INFER

STAGE = "offline simulator"
ALIGNMENT = 64  # of the start of every memory, in bytes
_NEVER_WRITTEN = 0xA5  # what memory holds before the first command
# below this work a second thread costs more than it saves; a hint only, results do not depend on it
_WORTH_THREADS_MACS, _WORTH_THREADS_VECTOR = 2_000_000, 400_000

Step = Callable[[], Any]
Bind = Callable[[Sequence[Array], Sequence[Array]], Step]
Frame = Mapping[str, Array]


def aligned_bytes(size: int) -> Array:
    """Uint8 memory of exactly `size` bytes whose address is a multiple of `ALIGNMENT`."""
    try:
        block = np.full(size + ALIGNMENT, _NEVER_WRITTEN, np.uint8)
    except (MemoryError, ValueError) as error:
        raise UserError(
            f"the image needs {size} bytes of memory, which this machine does not have", stage=STAGE
        ) from error
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def _view(memory: Array, placement: Placement, dtype: DType) -> Array:
    """A tensor's bytes as an array of its type and shape."""
    return memory[placement.offset : placement.offset + placement.size].view(dtype.numpy).reshape(placement.shape)


# -- kernels -----------------------------------------------------------------------------------------------------------
class _Kernels:
    """One kernel for all commands that are equal but for where their operands lie."""

    def __init__(self, image: Image, threads: int) -> None:
        self._image = image
        self._threads = threads
        self._made: dict[object, Bind] = {}

    def __getitem__(self, key: tuple[Command, Mapping[int, Placement]]) -> Bind:
        command, placed = key
        names = local_names(command)
        graph, node, identity = self._graph(command, placed, names)
        if identity not in self._made:
            self._made[identity] = self._make(graph, node, command)
        return self._made[identity]

    def _graph(
        self, command: Command, placed: Mapping[int, Placement], names: dict[int, str]
    ) -> tuple[Graph, Node, object]:
        """The command as a graph of one node, and what makes two of them the same."""
        graph = Graph(name=command.opcode)
        identity: list[object] = [command.opcode, repr(sorted(command.attrs.items()))]
        for index, name in names.items():
            ref, placement = self._image.tensors[index], placed[index]
            constant = placement.space is Space.WEIGHTS
            data = self._constant(placement, ref.dtype) if constant else None
            graph.tensors[name] = Tensor(name, placement.shape, ref.dtype, data, ref.quant)
            quant = ref.quant and (ref.quant.scale.tobytes(), ref.quant.zero_point.tobytes(), ref.quant.axis)
            identity.append((name, placement.shape, ref.dtype, quant, placement.offset if constant else None))
        inputs = [None if index == -1 else names[index] for index in command.inputs]
        node = Node(
            command.opcode, inputs, [names[index] for index in command.outputs], dict(command.attrs), command.name
        )
        graph.nodes.append(node)
        return graph, node, (*identity, tuple(inputs), tuple(node.outputs))

    def _constant(self, placement: Placement, dtype: DType) -> Array:
        data = self._image.weights[placement.offset : placement.offset + placement.size]
        if dtype is DType.INT4:
            return unpack_nibbles(data, math.prod(placement.shape)).reshape(placement.shape)
        return np.require(data.view(dtype.numpy).reshape(placement.shape), requirements="A")

    def _make(self, graph: Graph, node: Node, command: Command) -> Bind:
        declared = [graph[name].shape for name in node.outputs]
        inferred = [shape for shape, _ in INFER[node.op](node, graph.operands(node))]
        if inferred != declared:
            raise UserError(
                f"results have shapes {declared}, the operands give {inferred}", stage=STAGE, node=node.label
            )
        if node.op in HOST:
            return _host_kernel(graph, node)
        heavy = command.macs >= _WORTH_THREADS_MACS or command.vector_ops >= _WORTH_THREADS_VECTOR
        return _session_kernel(graph, node, self._threads if heavy else 1)


def local_names(command: Command) -> dict[int, str]:
    """Tensor index → name inside the command, in order of first appearance."""
    order = dict.fromkeys(index for index in (*command.inputs, *command.outputs) if index != -1)
    return {index: f"t{position}" for position, index in enumerate(order)}


def _host_kernel(graph: Graph, node: Node) -> Bind:
    kernel = HOST[node.op].make(graph, node)
    return lambda inputs, outputs: lambda: kernel(list(inputs), list(outputs))


def _session_kernel(graph: Graph, node: Node, threads: int) -> Bind:
    """The operator's integer lowering alone in a session; its arrays are bound by address."""
    session = node_session(graph, node, threads)
    reads = [name for name in node.inputs if name is not None and not graph[name].is_constant]

    def bind(inputs: Sequence[Array], outputs: Sequence[Array]) -> Step:
        binding = session.io_binding()
        for name, array in dict(zip(reads, inputs, strict=True)).items():
            binding.bind_input(f"in:{name}", "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in zip(node.outputs, outputs, strict=True):
            binding.bind_output(f"out:{name}", "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return lambda: session.run_with_iobinding(binding)

    return bind


# -- one program -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Buffers:
    """Bytes of the inputs and outputs of one frame."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    steps: tuple[Step, ...]


class _Machine:
    """The memories of one program, and its commands bound to them for every frame that was asked for so far."""

    def __init__(self, image: Image, program: Program, kernels: _Kernels) -> None:
        self._image = image
        self._program = program
        self._kernels = kernels
        self._placed = {placement.tensor: placement for placement in program.placements}
        self._arena = aligned_bytes(program.arena_size)
        self._inner: dict[int, Step] = {}  # commands that touch no frame's buffers: bound once
        self._frames: list[_Buffers] = []

    def frames(self, count: int) -> list[_Buffers]:
        """Buffers and steps of the first `count` frames."""
        stacked = self._image.batch_mode is BatchMode.ONE_BUF
        while len(self._frames) < count:
            held = self._program.passes if stacked else 1
            sides = [self._buffers(tensors, held) for tensors in (self._image.inputs, self._image.outputs)]
            for position in range(held):
                inputs, outputs = (tuple(buffers[position] for buffers in side) for side in sides)
                self._frames.append(_Buffers(inputs, outputs, self._bound(inputs, outputs)))
        return self._frames[:count]

    def _buffers(self, tensors: Sequence[IoTensor], frames: int) -> list[list[Array]]:
        """Per tensor, the bytes of each frame: slices of one buffer."""
        result = []
        for tensor in tensors:
            size = self._image.tensors[tensor.tensor].nbytes
            buffer = aligned_bytes(size * frames)
            result.append([buffer[k * size : (k + 1) * size] for k in range(frames)])
        return result

    def _bound(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> tuple[Step, ...]:
        steps = []
        for index, command in enumerate(self._program.commands):
            spaces = {self._placed[i].space for i in (*command.inputs, *command.outputs) if i != -1}
            if Space.INPUT in spaces or Space.OUTPUT in spaces:
                steps.append(self._bind(command, inputs, outputs))
                continue
            if index not in self._inner:
                self._inner[index] = self._bind(command, inputs, outputs)
            steps.append(self._inner[index])
        return tuple(steps)

    def _bind(self, command: Command, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> Step:
        def view(index: int) -> Array:
            placement = self._placed[index]
            memory = {Space.ARENA: (self._arena,), Space.INPUT: inputs, Space.OUTPUT: outputs}[placement.space]
            return _view(memory[placement.buffer], placement, self._image.tensors[index].dtype)

        reads = [i for i in command.inputs if i != -1 and self._placed[i].space is not Space.WEIGHTS]
        return self._kernels[command, self._placed]([view(i) for i in reads], [view(i) for i in command.outputs])


# -- what callers use --------------------------------------------------------------------------------------------------
class OfflineEngine:
    """Executes an image. Not safe for concurrent calls.

    Args:
        image: as read or compiled.
        threads: of one heavy command; 0 is one per core.
    """

    def __init__(self, image: Image, *, threads: int = 0) -> None:
        self.image = image
        self._kernels = _Kernels(image, threads)
        self._machines: dict[int, _Machine] = {}
        for batch in (program.batch for program in image.programs):
            self._machine(batch).frames(1)  # build all kernels now

    def run(self, feeds: Frame | Sequence[Frame], *, batch: int | None = None) -> dict[str, Array]:
        """Run on codes (float32 where an input is float) and return arrays keyed by output name.

        `feeds` maps input names to arrays that hold one frame or several stacked on the highest dimension, or is a
        sequence of such mappings, one per frame. Results are stacked the same way. `batch` is the number of frames,
        checked when given. Raises ValueError, saying what was expected and what was got, for names, shapes, types or
        a number of frames that the image does not take.
        """
        frames = [feeds] if isinstance(feeds, Mapping) else list(feeds)
        sets = [one for frame in frames for one in self._split(frame)]
        program = self._program(len(sets), batch)
        buffers = self._machine(program.batch).frames(len(sets))
        for values, frame in zip(sets, buffers, strict=True):
            for value, target in zip(values, frame.inputs, strict=True):
                np.copyto(target.view(value.dtype).reshape(value.shape), value)
        for frame in buffers:
            for step in frame.steps:
                step()
        return {
            tensor.name: self._stacked([frame.outputs[index] for frame in buffers], tensor)
            for index, tensor in enumerate(self.image.outputs)
        }

    def _machine(self, batch: int) -> _Machine:
        if batch not in self._machines:
            program = next(program for program in self.image.programs if program.batch == batch)
            self._machines[batch] = _Machine(self.image, program, self._kernels)
        return self._machines[batch]

    def _program(self, frames: int, batch: int | None) -> Program:
        legal = self.image.batches
        if batch is not None and batch != frames:
            raise ValueError(f"expected {batch} frames, got {frames}")
        if self.image.batch_mode is BatchMode.N_BUF:
            if not 1 <= frames <= legal[0]:
                raise ValueError(f"expected 1 to {legal[0]} frames, got {frames}")
            return self.image.programs[0]
        if frames not in legal:
            raise ValueError(f"expected {' or '.join(map(str, legal))} frames, got {frames}")
        return self.image.programs[legal.index(frames)]

    def _split(self, feeds: Frame) -> list[list[Array]]:
        """The arrays of every frame that a mapping holds, in the order of the image's inputs."""
        names = [tensor.name for tensor in self.image.inputs]
        if set(feeds) != set(names):
            raise ValueError(f"expected inputs {names}, got {list(feeds)}")
        parts = [self._parts(tensor, np.asarray(feeds[tensor.name])) for tensor in self.image.inputs]
        counts = {len(part) for part in parts}
        if len(counts) > 1:
            raise ValueError(f"expected as many frames in every input, got {[len(part) for part in parts]} of {names}")
        return [list(values) for values in zip(*parts, strict=True)] if parts else [[]]

    @staticmethod
    def _parts(tensor: IoTensor, array: Array) -> list[Array]:
        shape, dtype = tensor.shape, tensor.dtype.numpy
        count = array.shape[0] // shape[0] if array.ndim and shape else 1
        stacked = (count * shape[0], *shape[1:]) if shape else ()
        if array.dtype != dtype or array.shape != stacked or not count:
            expected = f"{dtype}{list(shape)}, or several stacked on the highest dimension"
            raise ValueError(f"input '{tensor.name}': expected {expected}, got {array.dtype}{list(array.shape)}")
        return [array] if count == 1 else np.split(array, count)

    @staticmethod
    def _stacked(frames: Sequence[Array], tensor: IoTensor) -> Array:
        arrays = [frame.view(tensor.dtype.numpy).reshape(tensor.shape) for frame in frames]
        return arrays[0].copy() if len(arrays) == 1 else np.concatenate([np.atleast_1d(array) for array in arrays])
