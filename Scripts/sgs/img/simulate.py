"""The machine that executes an image: its commands and nothing else, on byte arrays of the planned sizes.

Transfers copy bytes between the memories, kernels work on bytes of SRAM, all at the planned offsets, so a plan in which
two tensors collide, or a piece comes too late, gives wrong results here instead of hiding. A kernel is the one that the
fixed engine runs for its operator, bound straight to those bytes. What SRAM holds of its constants is compared with
what it was built from whenever it runs.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sgs.engine.single import host_operands, node_session
from sgs.errors import UserError
from sgs.img.frames import frames_of, split, stack
from sgs.img.image import BatchMode, Command, Compute, Dma, Image, IoTensor, Kernel, Program, Space, TensorRef
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.nibbles import unpack_nibbles
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import COST, HOST, INFER

STAGE = "offline simulator"
ALIGNMENT = 64  # of the start of every memory, in bytes
_NEVER_WRITTEN = 0xA5  # what memory holds before the first command
# below this work a second thread costs more than it saves; a hint only, results do not depend on it
_WORTH_THREADS_MACS, _WORTH_THREADS_VECTOR = 2_000_000, 400_000

_COMPUTED = {DType.UINT8, DType.INT16, DType.UINT16, DType.FLOAT32}  # an operator may turn any of them into another

Shape = tuple[int, ...]
Step = Callable[[], Any]
Bind = Callable[[Sequence[Array], Sequence[Array]], Step]
Frame = Mapping[str, Array]
Memory = Mapping[Space, tuple[Array, ...]]


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


def _coalesced(extents: Shape, sides: tuple[Shape, Shape]) -> tuple[Shape, Shape, Shape]:
    """The same elements with as few axes as possible: (extents, strides of either side)."""
    axes = [(extent, *strides) for extent, *strides in zip(extents, *sides, strict=True) if extent > 1]
    merged: list[tuple[int, int, int]] = []
    for extent, one, other in axes:
        if merged and merged[-1][1] == one * extent and merged[-1][2] == other * extent:
            merged[-1] = merged[-1][0] * extent, one, other
        else:
            merged.append((extent, one, other))
    columns = tuple(zip(*merged, strict=True)) if merged else ((), (), ())
    return columns[0], columns[1], columns[2]


def _transfer(command: Dma, source: Array, target: Array) -> Step:
    """The copy between two memories."""
    extents, *strides = _coalesced(command.extents, (command.source.strides, command.target.strides))
    kind, size = f"u{command.itemsize}", command.itemsize
    if extents and all(side[-1] == size for side in strides):  # rows of bytes are copied fastest
        extents, kind = (*extents[:-1], extents[-1] * size), "u1"
        strides = [(*side[:-1], 1) for side in strides]
    views = [
        np.ndarray(extents, kind, memory.data, place.offset, side)
        for memory, place, side in zip((source, target), (command.source, command.target), strides, strict=True)
    ]
    return partial(np.copyto, views[1], views[0])


# -- kernels -----------------------------------------------------------------------------------------------------------
class _Kernels:
    """The kernels of an image, each built once for the constants that it is run with."""

    def __init__(self, image: Image, threads: int) -> None:
        self._image = image
        self._threads = threads
        self._made: dict[object, Bind] = {}

    def bind(self, command: Compute, memory: Array, *, keep: bool) -> Step:
        """The command's computation on this memory, with the constants that the memory holds now; `keep` it for other
        commands."""
        kernel = self._image.kernels[command.kernel]
        constants = self.constants(command, memory)
        key = command.kernel, *(hashlib.blake2b(held.tobytes(), digest_size=16).digest() for held in constants)
        made = self._made.get(key) or self._make(kernel, constants)
        if keep:
            self._made[key] = made
        known = set(kernel.constants)
        reads = [
            _view(memory, offset, self._image.tensors[tensor])
            for position, (tensor, offset) in enumerate(zip(kernel.inputs, command.inputs, strict=True))
            if tensor != -1 and position not in known
        ]
        writes = [
            _view(memory, offset, self._image.tensors[tensor])
            for tensor, offset in zip(kernel.outputs, command.outputs, strict=True)
        ]
        held = {offset for offset in command.inputs if offset != -1}
        if held.isdisjoint(command.outputs):
            return made(reads, writes)
        return _apart(made, reads, writes)

    def constants(self, command: Compute, memory: Array) -> list[Array]:
        """The bytes in memory of a command's constant operands."""
        kernel = self._image.kernels[command.kernel]
        return [self._bytes(kernel, position, memory, command) for position in kernel.constants]

    def _bytes(self, kernel: Kernel, position: int, memory: Array, command: Compute) -> Array:
        offset = command.inputs[position]
        return memory[offset : offset + self._image.tensors[kernel.inputs[position]].nbytes]

    def _make(self, kernel: Kernel, constants: Sequence[Array]) -> Bind:
        graph = Graph(name=kernel.opcode)
        data = dict(zip(kernel.constants, constants, strict=True))
        names: list[str | None] = []
        for position, index in enumerate((*kernel.inputs, *kernel.outputs)):
            if index == -1:
                names.append(None)
                continue
            ref, name = self._image.tensors[index], f"t{position}"
            held = _decoded(data[position], ref) if position in data else None
            graph.tensors[name] = Tensor(name, ref.shape, ref.dtype, held, ref.quant)
            names.append(name)
        count = len(kernel.inputs)
        outputs = [name for name in names[count:] if name is not None]
        node = Node(
            kernel.opcode, names[:count], outputs, dict(kernel.attrs), self._image.tensors[kernel.outputs[0]].name
        )
        graph.nodes.append(node)
        _check_results(graph, node)
        if node.op in HOST:
            return _host_kernel(graph, node)
        work = COST[node.op](node, graph.operands(node), graph.results(node))
        heavy = work.macs >= _WORTH_THREADS_MACS or work.vector_ops >= _WORTH_THREADS_VECTOR
        return _session_kernel(graph, node, self._threads if heavy else 1)


def _apart(made: Bind, reads: Sequence[Array], writes: Sequence[Array]) -> Step:
    """The computation with results that lie on operands: these are read whole before anything is written."""
    results = [np.empty_like(result) for result in writes]
    compute = made(reads, results)

    def step() -> None:
        compute()
        for result, target in zip(results, writes, strict=True):
            np.copyto(target, result)

    return step


def _check_results(graph: Graph, node: Node) -> None:
    """Raise ValueError for results that are declared in another way than the operands give them."""
    inferred = INFER[node.op](node, graph.operands(node))
    for result, (shape, dtype) in zip(graph.results(node), inferred, strict=True):
        if result.shape != tuple(shape):
            raise ValueError(f"a result has shape {list(result.shape)}, the operands give {list(shape)}")
        if result.dtype is not dtype and not {result.dtype, dtype} <= _COMPUTED:
            raise ValueError(f"a result is {result.dtype.name}, the operands give {dtype.name}")


def _view(memory: Array, offset: int, ref: TensorRef) -> Array:
    """A tensor's bytes as an array of its type and shape."""
    return memory[offset : offset + ref.nbytes].view(ref.dtype.numpy).reshape(ref.shape)


def _decoded(held: Array, ref: TensorRef) -> Array:
    """A constant as an array of its own."""
    if ref.dtype is DType.INT4:
        return unpack_nibbles(held, math.prod(ref.shape)).reshape(ref.shape)
    return held.copy().view(ref.dtype.numpy).reshape(ref.shape)


def _host_kernel(graph: Graph, node: Node) -> Bind:
    kernel = HOST[node.op].make(graph, node)
    return lambda inputs, outputs: partial(kernel, host_operands(graph, node, inputs), list(outputs))


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


class _Run:
    """One kernel command. It is bound when it first runs, and again, for itself, should its constants have changed."""

    def __init__(self, command: Compute, kernels: _Kernels, memory: Array) -> None:
        self._command, self._kernels, self._memory = command, kernels, memory
        self._constants = kernels.constants(command, memory)
        self._built: list[bytes] = []
        self._step: Step | None = None

    def __call__(self) -> None:
        held = [constant.tobytes() for constant in self._constants]
        if self._step is None or held != self._built:
            self._step = self._kernels.bind(self._command, self._memory, keep=self._step is None)
            self._built = held
        self._step()


# -- one program -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Buffers:
    """Bytes of the inputs and outputs of one frame."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    steps: tuple[Step, ...]

    def feed(self, values: Sequence[Array]) -> None:
        for value, target in zip(values, self.inputs, strict=True):
            np.copyto(target.view(value.dtype).reshape(value.shape), value)


class _Machine:
    """The memories of one program, and its commands bound to them for every frame that was asked for so far."""

    def __init__(self, image: Image, program: Program, kernels: _Kernels) -> None:
        self._image = image
        self._program = program
        self._kernels = kernels
        self._memory = {
            Space.ARENA: (aligned_bytes(program.arena_size),),
            Space.SRAM: (aligned_bytes(program.sram_size),),
            Space.WEIGHTS: (image.weights,),
        }
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

    def memory(self, frame: _Buffers) -> Memory:
        """The bytes that the commands of a frame work on."""
        return {**self._memory, Space.INPUT: frame.inputs, Space.OUTPUT: frame.outputs}

    def _bound(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> tuple[Step, ...]:
        memory: Memory = {**self._memory, Space.INPUT: inputs, Space.OUTPUT: outputs}
        steps = []
        for index, command in enumerate(self._program.commands):
            if isinstance(command, Dma):
                sides = [memory[place.space][place.buffer] for place in (command.source, command.target)]
                if {command.source.space, command.target.space} & {Space.INPUT, Space.OUTPUT}:
                    steps.append(_transfer(command, *sides))
                    continue
            if index not in self._inner:
                self._inner[index] = (
                    _transfer(command, *sides)
                    if isinstance(command, Dma)
                    else _Run(command, self._kernels, memory[Space.SRAM][0])
                )
            steps.append(self._inner[index])
        return tuple(steps)


# -- what callers use --------------------------------------------------------------------------------------------------
class OfflineEngine:
    """Executes an image. `run` may be called from several threads at a time: each call has memories to itself.

    Args:
        image: as read or compiled.
        threads: of one heavy command; 0 is one per core.
    """

    def __init__(self, image: Image, *, threads: int = 0) -> None:
        self.image = image
        self._kernels = _Kernels(image, threads)
        # Machines that no call is using, by batch; made when they are first run: their memory may be large.
        self._idle: dict[int, deque[_Machine]] = {program.batch: deque() for program in image.programs}

    def run(self, feeds: Frame | Sequence[Frame], *, batch: int | None = None) -> dict[str, Array]:
        """Run on codes (float32 where an input is float) and return arrays keyed by output name.

        `feeds` maps input names to arrays that hold one frame or several stacked on the highest dimension, or is a
        sequence of such mappings, one per frame. Results are stacked the same way. `batch` is the number of frames,
        checked when given. Raises ValueError, saying what was expected and what was got, for names, shapes, types or
        a number of frames that the image does not take. Raises UserError naming a command that cannot be executed.
        """
        frames = [feeds] if isinstance(feeds, Mapping) else list(feeds)
        sets = [one for frame in frames for one in self._split(frame)]
        program = self._program(len(sets), batch)
        with self._machine(program) as machine:
            buffers = machine.frames(len(sets))
            for values, frame in zip(sets, buffers, strict=True):
                frame.feed(values)
            for frame in buffers:
                deque(self._executed(program.commands, frame.steps), maxlen=0)
            return {
                tensor.name: self._stacked([frame.outputs[index] for frame in buffers], tensor)
                for index, tensor in enumerate(self.image.outputs)
            }

    def watch(self, feeds: Frame) -> Iterator[tuple[int, Memory]]:
        """Run one frame of the first program; after every command its number, and the bytes of all memories as they are
        then (INPUT and OUTPUT: one array per buffer). Arguments and errors as of `run`."""
        frames = self._split(feeds)
        if len(frames) > 1:
            raise ValueError(f"expected one frame, got {len(frames)}")
        (values,) = frames
        program = self.image.programs[0]
        with self._machine(program) as machine:
            frame = machine.frames(program.passes)[0]
            frame.feed(values)
            memory = machine.memory(frame)
            for number in self._executed(program.commands, frame.steps):
                yield number, memory

    def _executed(self, commands: Sequence[Command], steps: Sequence[Step]) -> Iterator[int]:
        """Execute the commands one by one, giving the number of each."""
        number = 0
        try:
            for number, step in enumerate(steps):
                step()
                yield number
        except Exception as error:  # an operator's rows trust the compiler; what is wrong in a file shows as anything
            command = commands[number]
            reason = f"cannot be executed: {str(error).strip() or type(error).__name__}"
            opcode = self.image.kernels[command.kernel].opcode if isinstance(command, Compute) else "transfer"
            where = f"{opcode} of layer '{self.image.layers[command.layer].name}'"
            raise UserError(reason, stage=STAGE, node=where, remedy="compile the fixed .sim again") from error

    @contextmanager
    def _machine(self, program: Program) -> Iterator[_Machine]:
        """A machine of the program, this call's own until the block ends."""
        idle = self._idle[program.batch]
        try:
            machine = idle.pop()
        except IndexError:
            machine = _Machine(self.image, program, self._kernels)
        try:
            yield machine
        finally:
            idle.append(machine)

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
        count = frames_of(shape, array.shape)
        if array.dtype != dtype or not count:
            expected = f"{dtype}{list(shape)}, or several stacked on the highest dimension"
            raise ValueError(f"input '{tensor.name}': expected {expected}, got {array.dtype}{list(array.shape)}")
        return split(array, shape, count)

    @staticmethod
    def _stacked(frames: Sequence[Array], tensor: IoTensor) -> Array:
        arrays = [frame.view(tensor.dtype.numpy).reshape(tensor.shape) for frame in frames]
        return arrays[0].copy() if len(arrays) == 1 else stack(arrays)
