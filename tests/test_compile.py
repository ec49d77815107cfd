"""The compiler: what the commands compute on planned memory is what the fixed graph means, to the bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from fixed_examples import code_feeds, fixed_variants
from sgs.builder import GraphBuilder
from sgs.compile import compile_graph, summarise
from sgs.compile.cost import Cycles, Timeline, array_cycles, computation_cycles, mac_cycles, transfer_cycles
from sgs.compile.layer_steps import LayerSteps
from sgs.compile.legalise import ranks_fit, told_by
from sgs.compile.live import Storage, reside
from sgs.compile.memory import Memory
from sgs.compile.residency import compulsory_traffic, spill_bound
from sgs.compile.tiling import Cutter, Tiling, quickest, tightest
from sgs.config.chips import Chip, load_chip
from sgs.engine import FixedEngine, run_reference
from sgs.errors import UserError
from sgs.img import BatchMode, Compute, Dma, Image, OfflineEngine, Space, image_bytes, parse_image
from sgs.img.check import LARGEST_AXES
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, QuantParams, activation_params, quantise_weights, symmetric_params
from sgs.numeric.table import build_table
from sgs.numeric.types import DType
from sgs.registry import COST, MOVE, OPERATOR, QUANTISE, MacShape

WHOLE = {"DETECTION_NMS"}  # cannot be cut
FIXED_OPS = [op for op in OPERATOR if OPERATOR[op].stage != "float"]


@pytest.fixture(scope="module")
def chip() -> Chip:
    return load_chip("ibopper")


# -- fixed graphs by hand ----------------------------------------------------------------------------------------------
class Fixed:
    """Builds fixed graphs: every activation is UINT8 or INT16 with parameters of a range around zero."""

    def __init__(self) -> None:
        self.build = GraphBuilder()
        self.rng = np.random.default_rng(5)

    def input(self, name: str, shape: tuple[int, ...], dtype: DType = DType.INT16) -> Tensor:
        return self.typed(self.build.input(name, shape, dtype), dtype, 4.0)

    @staticmethod
    def typed(tensor: Tensor, dtype: DType, bound: float) -> Tensor:
        tensor.dtype = dtype
        tensor.quant = None if dtype.is_float else activation_params(-0.7 * bound, bound, dtype)
        return tensor

    @staticmethod
    def typed_as(tensor: Tensor, other: Tensor) -> Tensor:
        tensor.dtype, tensor.quant = other.dtype, other.quant
        return tensor

    def __call__(
        self, op: str, *operands: Tensor, dtype: DType = DType.INT16, bound: float = 5.0, **attrs: Any
    ) -> Tensor:
        return self.typed(self.build(op, *operands, **attrs), dtype, bound)

    def conv(
        self, x: Tensor, channels: int, kernel: int, dtype: DType = DType.INT16, weights: DType = DType.INT8
    ) -> Tensor:
        real = self.rng.normal(0, 0.4, (channels, kernel, kernel, x.shape[3]))
        quant = symmetric_params(np.abs(real).reshape(channels, -1).max(1), weights)
        weight = self.build.graph.add_constant("w", quantise_weights(real, quant, weights), quant=quant, dtype=weights)
        bias = self.build.graph.add_constant("b", self.rng.integers(-500, 500, channels).astype(np.int32))
        pad = kernel // 2
        window = dict(strides=(1, 1), dilations=(1, 1), pads=(pad,) * 4, activation="NONE")
        return self("CONV_2D", x, weight, bias, dtype=dtype, **window)

    def table(self, x: Tensor, dtype: DType = DType.INT16, bound: float = 5.0) -> Tensor:
        assert x.quant is not None
        params = activation_params(-0.7 * bound, bound, dtype)
        data = build_table(lambda v: v / (1 + np.exp(-np.asarray(v, np.float64))), x.quant, x.dtype, params, dtype)
        return self("TABLE", x, self.build.constant("t", data), dtype=dtype, bound=bound)

    def done(self, *outputs: Tensor) -> Graph:
        return self.build.output(*outputs)


def chain() -> Graph:
    """float → codes → convolution → table → convolution → float."""
    f = Fixed()
    x = f.build.input("x", (1, 7, 9, 3))
    y = f.table(f.conv(f("QUANTIZE", x, dtype=DType.UINT8), 6, 3), DType.UINT8)
    return f.done(f("DEQUANTIZE", f.conv(y, 4, 3), dtype=DType.FLOAT32))


def residual() -> Graph:
    """Two branches added, both of them read again; inner tensor and sum are outputs."""
    f = Fixed()
    x = f.input("x", (1, 6, 5, 4), DType.UINT8)
    a = f.conv(x, 4, 3)
    b = f("QUANTIZE", a, dtype=DType.UINT8)
    c = f.conv(f.conv(b, 4, 1, DType.UINT8), 4, 3)
    total = f("ADD", a, c, bound=9.0, activation="NONE")
    return f.done(a, f.table(total))


def concat() -> Graph:
    """Three branches joined, one of them twice, one of them the input itself."""
    f = Fixed()
    x = f.input("x", (1, 6, 5, 4))
    a = f("ADD", x, x, bound=4.0, activation="RELU")
    y = f.build("CONCATENATION", x, a, x, axis=3)
    y.quant = x.quant
    return f.done(f.table(y))


def packed_weights() -> Graph:
    """4-bit weights of odd count, and equal constants."""
    f = Fixed()
    x = f.input("x", (1, 5, 7, 3), DType.UINT8)
    y = f.conv(x, 5, 3, weights=DType.INT4)
    return f.done(f.table(y), f.table(f("SUB", y, y, activation="NONE")))


def reshaped(read_again: bool) -> Callable[[], Graph]:
    """Changes of shape in front, inside and at the end, the last of a tensor that may be read again."""

    def make() -> Graph:
        f = Fixed()
        x = f.input("x", (1, 6, 20))
        y = f.table(f("RESHAPE", x, shape=(1, 6, 5, 4), bound=4.0))
        z = f("RESHAPE", f("RESHAPE", y, shape=(1, 30, 4)), shape=(120,))
        return f.done(z, f.table(y)) if read_again else f.done(z)

    return make


def two_shapes_of_one_tensor() -> Graph:
    """Outputs that are the same bytes: only one of them can have them in place."""
    f = Fixed()
    y = f.table(f.input("x", (1, 6, 20)))
    return f.done(f("RESHAPE", y, shape=(1, 120)), y, f("RESHAPE", y, shape=(120,)))


def reshaped_input_as_output() -> Graph:
    f = Fixed()
    return f.done(f("RESHAPE", f.input("x", (1, 6, 20)), shape=(2, 60), bound=4.0))


def copies() -> Graph:
    """Outputs that no command produces: an input, a constant; and a result that nobody reads."""
    f = Fixed()
    x = f.input("x", (1, 6, 20))
    constant = f.build.graph.add_constant("c", np.arange(12, dtype=np.int16).reshape(1, 12), quant=x.quant)
    y = f.table(x)
    f.table(y)
    return f.done(x, constant, y)


def two_inputs() -> Graph:
    f = Fixed()
    a, b = f.input("a", (1, 4, 3)), f.input("b", (1, 1, 3))
    return f.done(f("MUL", a, b, activation="NONE"))


def moved(f: Fixed, op: str, *operands: Tensor, **attrs: Any) -> Tensor:
    """A move: its result has its operand's type and parameters."""
    return f.typed_as(f.build(op, *operands, **attrs), operands[0])


def heads() -> Graph:
    """Results of two sizes, made rows of one output: addresses alone."""
    f = Fixed()
    x = f.input("x", (1, 6, 5, 4), DType.UINT8)
    a = f.conv(x, 4, 3)
    b = f("AVERAGE_POOL_2D", x, kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0), activation="NONE")
    rows = [moved(f, "RESHAPE", t, shape=(1, t.shape[1] * t.shape[2], 4)) for t in (a, b)]
    rows[1].quant = rows[0].quant
    return f.done(moved(f, "CONCATENATION", *rows, axis=1))


def joined_twice() -> Graph:
    """An operand that is there twice and one that is read elsewhere, in an output; parts of it cut out again."""
    f = Fixed()
    x = f.input("x", (3, 4))
    a, b = f.table(x), f("ADD", x, x, activation="NONE")
    b.quant = a.quant
    y = moved(f, "CONCATENATION", a, b, a, axis=0)
    z = moved(f, "CONCATENATION", b, y, axis=0)
    part = moved(f, "STRIDED_SLICE", z, begin=(2, 0), end=(7, 4), strides=(1, 1))
    column = moved(f, "STRIDED_SLICE", z, begin=(0, 1), end=(12, 3), strides=(1, 1))
    return f.done(y, f.table(part), f.table(column))


def joined_with_itself() -> Graph:
    """One operand twice, beside another: its bytes are where they belong once, and are copied once."""
    f = Fixed()
    x = f.input("x", (1, 6, 5, 4))
    a, b = f.table(x), f("ADD", x, x, activation="NONE")
    b.quant = a.quant
    return f.done(moved(f, "CONCATENATION", a, b, a, axis=1))


def split_rows() -> Graph:
    f = Fixed()
    x = f.input("x", (8, 5))
    parts = f.build.node("SPLIT", [x], axis=0, num_splits=4)
    for part in parts:
        f.typed_as(part, x)
    again = moved(f, "CONCATENATION", parts[2], parts[0], axis=0)
    return f.done(f("ADD", parts[1], parts[3], activation="NONE"), f.table(again), parts[0])


BY_HAND: dict[str, Callable[[], Graph]] = {
    "chain": chain,
    "residual": residual,
    "concat": concat,
    "packed weights": packed_weights,
    "reshaped": reshaped(False),
    "reshaped, read again": reshaped(True),
    "two shapes of one tensor": two_shapes_of_one_tensor,
    "reshaped input as output": reshaped_input_as_output,
    "copies": copies,
    "two inputs": two_inputs,
    "heads": heads,
    "joined twice": joined_twice,
    "joined with itself": joined_with_itself,
    "split rows": split_rows,
}


# -- equal to the bit --------------------------------------------------------------------------------------------------
def through_file(graph: Graph, chip: Chip, **options: Any) -> Image:
    """The image as a reader of its file gets it."""
    return parse_image(image_bytes(compile_graph(graph, chip, **options)))


def stacked(frames: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([frame[name] for frame in frames]) for name in frames[0]}


def check_frames(graph: Graph, image: Image, count: int) -> None:
    """Offline on `count` frames, given one by one or stacked, equals engine and reference on each of them."""
    feeds = [code_feeds(graph, seed) for seed in range(count)]
    constants = any(graph[name].is_constant for name in graph.outputs)
    fixed = None if constants else FixedEngine(graph, threads=1)
    engine = OfflineEngine(image, threads=2)
    for offered in (feeds, stacked(feeds)):
        results = engine.run(offered, batch=count)
        assert list(results) == list(dict.fromkeys(graph.outputs))
        for index, frame in enumerate(feeds):
            truth = run_reference(graph, frame)
            values = truth if fixed is None else fixed.run(frame)
            for name, result in results.items():
                expected = graph[name].data if graph[name].is_constant else truth[name]
                part = np.split(np.atleast_1d(result), count)[index].reshape(expected.shape)
                assert np.array_equal(part, expected), f"{name}, frame {index}"
                assert graph[name].is_constant or np.array_equal(part, values[name]), f"{name}, frame {index}"


@pytest.mark.parametrize("op", FIXED_OPS)
def test_every_operator(op: str, chip: Chip) -> None:
    for _, graph in fixed_variants(op):
        check_frames(graph, through_file(graph, chip, batches=2), 2)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("make", BY_HAND.values(), ids=BY_HAND.keys())
def test_separate_buffers(make: Callable[[], Graph], count: int, chip: Chip) -> None:
    graph = make()
    check_frames(graph, through_file(graph, chip, batches=3), count)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("make", BY_HAND.values(), ids=BY_HAND.keys())
def test_one_buffer(make: Callable[[], Graph], count: int, chip: Chip) -> None:
    graph = make()
    check_frames(graph, through_file(graph, chip, batch_mode="one_buf", batches=(4, 2)), count)


def test_equal_graphs_give_equal_images(chip: Chip) -> None:
    assert image_bytes(compile_graph(residual(), chip)) == image_bytes(compile_graph(residual(), chip))


def test_the_graph_is_left_as_it_is(chip: Chip) -> None:
    graph = copies()
    before = graph.copy()
    compile_graph(graph, chip)
    assert (graph.nodes, graph.outputs, list(graph.tensors)) == (before.nodes, before.outputs, list(before.tensors))


def test_a_colliding_plan_shows(chip: Chip) -> None:
    """The simulator has no memory but the planned: two live tensors in one place give a wrong result."""
    f = Fixed()
    y = f.table(f.input("x", (1, 6, 20)))
    graph = f.done(f.table(f("SUB", f.table(y), y, activation="NONE")))
    image = compile_graph(graph, chip)
    feeds = code_feeds(graph, 0)
    name, truth = graph.outputs[0], run_reference(graph, feeds)
    assert np.array_equal(OfflineEngine(image).run(feeds)[name], truth[name])
    program = image.programs[0]
    places = [(k, n) for k, c in enumerate(program.commands) if isinstance(c, Compute) for n in range(len(c.outputs))]
    colliding = 0
    for index, number in places:
        commands = list(program.commands)
        command = commands[index]
        assert isinstance(command, Compute)
        outputs = list(command.outputs)
        outputs[number] = 0 if outputs[number] else 256
        commands[index] = replace(command, outputs=tuple(outputs))
        broken = replace(image, programs=(replace(program, commands=tuple(commands)),))
        colliding += not np.array_equal(OfflineEngine(broken).run(feeds)[name], truth[name])
    assert colliding == len(places)


def test_a_load_left_out_shows(chip: Chip) -> None:
    """Constants are taken from SRAM as well: whatever transfer is missing, the result is wrong."""
    graph = chain()
    image, feeds = compile_graph(graph, chip), code_feeds(graph, 0)
    program, truth = image.programs[0], run_reference(graph, feeds)[graph.outputs[0]]
    transfers = [index for index, command in enumerate(program.commands) if isinstance(command, Dma)]
    assert len(transfers) >= 7
    for index in transfers:
        commands = program.commands[:index] + program.commands[index + 1 :]
        broken = OfflineEngine(replace(image, programs=(replace(program, commands=commands),)))
        assert not np.array_equal(broken.run(feeds)[graph.outputs[0]], truth)


def test_constants_that_change_between_runs_are_noticed(chip: Chip) -> None:
    graph = chain()
    image, feeds = compile_graph(graph, chip), code_feeds(graph, 0)
    engine, before = OfflineEngine(image), run_reference(graph, feeds)[graph.outputs[0]]
    assert np.array_equal(engine.run(feeds)[graph.outputs[0]], before)
    image.weights[:] = np.roll(image.weights, 64)
    assert not np.array_equal(engine.run(feeds)[graph.outputs[0]], before)


@pytest.mark.parametrize("counts", [(1,), (2, 3)])
def test_inputs_that_are_overwritten(counts: tuple[int, ...], chip: Chip) -> None:
    """What would lie in the arena lies in the input; all frames are right, in any run."""
    f = Fixed()
    x = f.build.input("x", (1, 16, 12, 4))
    y = f("QUANTIZE", x)
    for _ in range(3):
        y = f("TRANSPOSE", y, perm=(0, 2, 1, 3))
        y.quant = f.build.graph[f.build.graph.nodes[-1].inputs[0] or ""].quant
        y = f("ADD", y, y, bound=5.0, activation="NONE")
    graph = f.done(y)
    small = smaller(chip, 2048)
    options: dict[str, Any] = {"batch_mode": "one_buf", "batches": counts}
    plain, inplace = (through_file(graph, small, **options, inplace_inputs=inplace) for inplace in (False, True))
    assert inplace.programs[0].arena_size < plain.programs[0].arena_size
    for count in counts:
        for _ in range(2):
            check_frames(graph, inplace, count)


def test_inputs_that_may_not_be_overwritten(chip: Chip) -> None:
    with pytest.raises(UserError, match="inplace_input_buf: is for batch mode one_buf"):
        compile_graph(chain(), chip, inplace_inputs=True)
    with pytest.raises(UserError, match="input 'a' is no RAWDATA_F32"):
        compile_graph(two_inputs(), chip, batch_mode="one_buf", inplace_inputs=True)


# -- in pieces ---------------------------------------------------------------------------------------------------------
TIGHT = (24_576, 4096, 2048, 1024, 512)  # bytes of SRAM


def smaller(chip: Chip, size: int) -> Chip:
    return replace(chip, sram_bytes=size, alignment=16)


def tiled(graph: Graph, chip: Chip) -> Iterator[Image]:
    """Images for ever less SRAM, as long as the graph fits."""
    for size in TIGHT:
        try:
            yield through_file(graph, smaller(chip, size))
        except UserError as error:
            assert re.search(r"its smallest piece needs|no layout of the buffers fits", str(error))
            assert f"{size:,}" in str(error)
            return


@pytest.mark.parametrize("op", FIXED_OPS)
def test_every_operator_in_little_memory(op: str, chip: Chip) -> None:
    pieces = 0
    for _, graph in fixed_variants(op):
        for image in tiled(graph, chip):
            check_frames(graph, image, 1)
            runs = [c.layer for c in image.programs[0].commands if isinstance(c, Compute)]
            pieces = max(pieces, len(runs) - len(set(runs)))
    assert pieces > 0 or op in MOVE or op in WHOLE


@pytest.mark.parametrize("make", BY_HAND.values(), ids=BY_HAND.keys())
def test_graphs_in_little_memory(make: Callable[[], Graph], chip: Chip) -> None:
    graph = make()
    for image in tiled(graph, chip):
        check_frames(graph, image, 1)
        for command in image.programs[0].commands:
            assert command.layer < len(image.layers)


def test_long_rows_are_read_for_as_many_channels_as_fit(chip: Chip) -> None:
    """Weights for ten rows would fill the memory: two rows of x come and go beside weights for eight channels, which
    are read once; in pairs as well they would be four, and x be read twice as often."""
    rows, width, channels = 30, 4900, 24
    f = Fixed()
    x = f.input("x", (rows, 7, 7, 100), DType.UINT8)
    weight = f.rng.integers(-127, 128, (channels, width)).astype(np.int8)
    quant = symmetric_params(np.linspace(0.01, 0.02, channels), DType.INT8)
    w = f.build.graph.add_constant("w", weight, quant=quant, dtype=DType.INT8)
    b = f.build.graph.add_constant("b", f.rng.integers(-500, 500, channels).astype(np.int32))
    graph = f.done(f("FULLY_CONNECTED", x, w, b, bound=3.0, activation="NONE", keep_num_dims=False))
    image = through_file(graph, smaller(chip, 10 * width + 1000))
    check_frames(graph, image, 1)
    commands = image.programs[0].commands
    read = {Space.INPUT: 0, Space.WEIGHTS: 0}
    for command in commands:
        if isinstance(command, Dma) and command.source.space in read:
            read[command.source.space] += int(np.prod(command.extents)) * command.itemsize
    assert read == {Space.INPUT: 3 * rows * width, Space.WEIGHTS: channels * (width + 4)}
    assert sum(isinstance(command, Compute) for command in commands) == 3 * rows


def test_what_does_not_fit_is_refused_by_name(chip: Chip) -> None:
    with pytest.raises(UserError, match=r"smallest piece needs [\d,]+ bytes of SRAM, there are 256 \(choose a"):
        compile_graph(chain(), smaller(chip, 256))


MANY = 400  # pieces


def chosen_tilings(cutter: Cutter) -> Iterator[Tiling]:
    """The ones that are chosen for ever less memory, the last of them too large; none of very many pieces."""
    for size in (1 << 20, *TIGHT):
        tight = tightest(cutter, size)
        quick = quickest(cutter, size, 1024) if tight.memory <= size else None
        yield from (tiling for tiling in (tight, quick) if tiling is not None and tiling.steps <= MANY)
        if quick is None:
            break


@pytest.mark.parametrize("op", [op for op in FIXED_OPS if op not in MOVE])
def test_pieces_take_no_more_memory_than_was_planned(op: str) -> None:
    """Whether operands and results lie in SRAM whole or not; pieces of transposed convolutions, say, read more or less
    depending on where in a stride they begin."""
    for _, graph in fixed_variants(op):
        residence = reside(graph)
        for layer, node in enumerate(residence.layers):
            if node.op != op:
                continue
            for resident in (frozenset(residence.spans), frozenset[Storage]()):
                inside = frozenset(name for name in graph.tensors if residence.storage.get(name) in resident)
                cutter = Cutter(graph, node, inside, 16)
                for tiling in set(chosen_tilings(cutter)):
                    memory = Memory.of(graph, residence, resident, {}, 16)
                    whole = len(memory.buffers)
                    LayerSteps(memory, layer).compute(tiling)
                    taken = sum(buffer.size for buffer in memory.buffers[whole:])
                    assert taken <= tiling.memory, tiling


# -- memory ------------------------------------------------------------------------------------------------------------
def test_a_change_of_shape_is_no_layer(chip: Chip) -> None:
    image = compile_graph(reshaped(False)(), chip)
    assert [layer.opcode for layer in image.layers] == ["TABLE"]
    assert image.programs[0].arena_size == 0
    assert [layer.opcode for layer in compile_graph(two_shapes_of_one_tensor(), chip).layers].count("RESHAPE") == 2


def test_moves_of_whole_runs_are_addresses(chip: Chip) -> None:
    image = compile_graph(heads(), chip)
    assert [layer.opcode for layer in image.layers] == ["CONV_2D", "AVERAGE_POOL_2D"]
    offsets = {
        c.target.offset for c in image.programs[0].commands if isinstance(c, Dma) and c.target.space is Space.OUTPUT
    }
    assert {0, 6 * 5 * 4 * 2} <= offsets
    joined = [layer.opcode for layer in compile_graph(joined_twice(), chip).layers]
    assert joined.count("CONCATENATION") == 2 and joined.count("STRIDED_SLICE") == 1  # the column
    split = [layer.opcode for layer in compile_graph(split_rows(), chip).layers]
    assert sorted(split) == ["ADD", "CONCATENATION", "RESHAPE", "TABLE"]  # the copy is the output


def on_operands(image: Image) -> list[str]:
    """Operators of commands whose result lies on an operand."""
    commands = [c for c in image.programs[0].commands if isinstance(c, Compute)]
    return [image.layers[c.layer].opcode for c in commands if set(c.inputs) & set(c.outputs)]


def test_elementwise_results_lie_on_operands_that_end(chip: Chip) -> None:
    """A chain of three sums in 1.6 times the memory of a tensor; what is read again, or has another size, stays."""
    f = Fixed()
    x = f.input("x", (1, 40, 10, 4))
    a = f("ADD", x, x, activation="NONE")
    for _ in range(2):
        a = f("ADD", a, f.build.constant("c", np.full((1, 1, 1, 4), 7, np.int16)), activation="NONE")
        f.build.graph[f.build.graph.nodes[-1].inputs[1] or ""].quant = x.quant
    narrow = f("QUANTIZE", a, dtype=DType.UINT8)
    graph = f.done(f.conv(narrow, 4, 1), f.conv(narrow, 3, 3))
    size = 40 * 10 * 4 * 2
    image = through_file(graph, smaller(chip, size * 8 // 5))
    assert on_operands(image) and set(on_operands(image)) == {"ADD"}
    check_frames(graph, image, 1)
    f = Fixed()
    a = f("ADD", f.input("x", (1, 6, 5, 4)), f.input("y", (1, 6, 5, 4)), activation="NONE")
    b = f("ADD", a, a, bound=9.0, activation="NONE")
    image = through_file(f.done(f("ADD", b, a, bound=12.0, activation="NONE")), chip)
    assert on_operands(image) == []  # the first operand is read again, the last result is an output


def test_a_result_does_not_lie_on_what_another_operand_reads(chip: Chip) -> None:
    """A row of the operand itself, cut out by an address, is added to every row."""
    f = Fixed()
    x = f.input("x", (1, 16, 6, 4))
    a = f("ADD", x, x, activation="NONE")
    row = f.typed_as(f.build("STRIDED_SLICE", a, begin=(0, 3, 0, 0), end=(1, 4, 6, 4), strides=(1, 1, 1, 1)), a)
    b = f("ADD", a, row, bound=9.0, activation="NONE")
    graph = f.done(f("ADD", b, b, bound=18.0, activation="NONE"))
    for image in tiled(graph, chip):
        check_frames(graph, image, 1)


def test_spans_of_a_residual() -> None:
    graph = residual()
    residence = reside(graph)
    spans = [(first, last, home.size) for home, (first, last) in residence.spans.items()]
    assert spans == [(1, 2, 120), (2, 3, 120), (3, 4, 240), (4, 5, 240)]
    assert [residence.storage[name].space for name in graph.outputs] == [Space.OUTPUT, Space.OUTPUT]


def test_what_fits_stays_in_sram(chip: Chip) -> None:
    program = compile_graph(residual(), chip).programs[0]
    assert program.arena_size == 0 and 0 < program.sram_lower_bound <= program.sram_size <= chip.sram_bytes
    tight = compile_graph(residual(), smaller(chip, 8400)).programs[0]  # the table alone takes 8,208
    assert tight.arena_size > 0 and tight.sram_size <= 8400


def test_constants_are_stored_once_and_packed(chip: Chip) -> None:
    image = compile_graph(packed_weights(), chip)
    loads = [c for c in image.programs[0].commands if isinstance(c, Dma) and c.source.space is Space.WEIGHTS]
    sizes = [int(np.prod(load.extents)) * load.itemsize for load in loads]
    offsets = [load.source.offset for load in loads]
    assert (5 * 3 * 3 * 3 + 1) // 2 in sizes
    assert len(loads) == 4 and len(set(offsets)) == 3  # both inputs have one scale, so one table
    assert all(offset % 64 == 0 for offset in offsets)
    assert image.weights.size == max(offset + size for offset, size in zip(offsets, sizes, strict=True))
    assert [(c.offset, c.size) for c in image.constants] == sorted(set(zip(offsets, sizes, strict=True)))
    assert {c.element for c in image.constants} == {1, 2, 4}  # packed codes, tables, biases


def test_the_least_traffic_by_hand() -> None:
    """Three storages of 120, 240 and 240 bytes: 100 and 220 bytes too many at two layers that share one."""
    residence = reside(residual())
    assert compulsory_traffic(residence, 1 << 20) == 120 + 2 * 240 + sum(
        home.size for home in set(residence.storage.values()) if home.space is Space.WEIGHTS
    )
    assert spill_bound(residence, 480) == 0
    assert spill_bound(residence, 470) == 2 * 10
    assert spill_bound(residence, 300) == 2 * 180


# -- cost --------------------------------------------------------------------------------------------------------------
def simple(chip: Chip) -> Chip:
    return replace(
        chip, macs_per_cycle=32, mac_inputs=4, mac_outputs=8, int16_divisor=4, int4_multiplier=2, vector_lanes=16,
        clock_hz=800, dram_bytes_per_second=1600, dram_latency_cycles=10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs", "steps", "expected"),
    [
        (1, 4, 8, 7, 7),  # the whole array in every cycle
        (1, 3, 8, 9, 9),  # a first layer: one row of the array idles
        (1, 5, 8, 7, 2 * 7),
        (1, 9, 17, 7, 3 * 3 * 7),
        (2, 4, 8, 7, 2 * 7),  # groups one after the other
        (2, 5, 9, 7, 2 * 2 * 2 * 7),
        (6, 2, 3, 7, 3 * 7),  # two at a time: 4 inputs, 6 outputs
        (6, 1, 5, 7, 6 * 7),  # one at a time: two would make 10 outputs
        (10, 1, 1, 9, 3 * 9),  # depthwise: four channels at a time
        (10, 1, 2, 9, 3 * 9),
    ],
)
def test_cycles_of_the_array_by_hand(
    groups: int, inputs: int, outputs: int, steps: int, expected: int, chip: Chip
) -> None:
    shape, chip = MacShape(groups, inputs, outputs, steps), simple(chip)
    assert array_cycles(shape, chip) == mac_cycles(shape, chip, DType.UINT8, DType.INT8) == expected
    assert mac_cycles(shape, chip, DType.INT16, DType.INT16) == 4 * expected
    assert mac_cycles(shape, chip, DType.UINT8, DType.INT4) == -(-expected // 2)
    assert mac_cycles(shape, chip, DType.INT16, DType.INT4) == 2 * expected


def test_cycles_by_hand(chip: Chip) -> None:
    chip, graph = simple(chip), residual()
    assert [node.op for node in graph.nodes[:2]] == ["CONV_2D", "QUANTIZE"]
    assert computation_cycles(graph, graph.nodes[0], chip) == Cycles("mac", 9 * 6 * 5)  # 9 taps, 4 → 4 channels
    assert computation_cycles(graph, graph.nodes[1], chip) == Cycles("vector", -(-120 // 16))
    narrow = packed_weights()
    assert computation_cycles(narrow, narrow.nodes[0], chip) == Cycles("mac", -(-9 * 5 * 7 // 2))


@pytest.mark.parametrize("op", [op for op in FIXED_OPS if op in QUANTISE and QUANTISE[op].kind == "mac"])
def test_the_array_does_no_more_than_it_can(op: str, chip: Chip) -> None:
    """Utilisation is at most 1, for every example, type and geometry; the shape of the work is the work."""
    for _, graph in fixed_variants(op):
        for node in (node for node in graph.nodes if node.op == op):
            operands = graph.operands(node)
            work, weight = COST[op](node, operands, graph.results(node)), operands[1]
            assert work.array is not None and weight is not None and work.macs == work.array.macs > 0
            rate = (4 if weight.dtype is DType.INT16 else 1) / (2 if weight.dtype is DType.INT4 else 1)
            for inputs, outputs in ((16, 16), (16, 32), (3, 5), (1, 1), (64, 64)):
                array = {"mac_inputs": inputs, "mac_outputs": outputs, "macs_per_cycle": inputs * outputs}
                busy = computation_cycles(graph, node, replace(chip, **array)).busy
                assert 0 < work.macs * rate <= busy * inputs * outputs
                if (inputs, outputs) == (1, 1):
                    assert busy == -(-work.macs * rate // 1)  # an array of one is always in use


@pytest.mark.parametrize("op", FIXED_OPS)
def test_sums_of_products_say_how_they_lie_on_the_array(op: str) -> None:
    for _, graph in fixed_variants(op):
        for node in graph.nodes:
            work = COST[node.op](node, graph.operands(node), graph.results(node))
            assert (work.array is None) == (work.macs == 0), node.op


@pytest.mark.parametrize(
    ("extents", "strides", "dram", "expected"),
    [
        ((101,), ((1,), (1,)), 1, Cycles("dma", 64, 10)),  # two bursts of 64 bytes at 2 bytes a cycle
        ((3, 64), ((64, 1), (64, 1)), 1, Cycles("dma", 96, 10)),
        ((3, 40), ((64, 1), (40, 1)), 1, Cycles("dma", 96, 10)),  # three runs of 40 bytes: a burst each
        ((3, 40), ((64, 1), (40, 1)), 2, Cycles("dma", 192, 10)),
        ((3, 40), ((64, 1), (40, 1)), 0, Cycles("dma", 6)),  # 192 bytes at 32 a cycle
    ],
)
def test_cycles_of_transfers_by_hand(
    extents: tuple[int, ...], strides: tuple[tuple[int, ...], ...], dram: int, expected: Cycles, chip: Chip
) -> None:
    assert transfer_cycles(extents, strides, 1, dram, simple(chip)) == expected


def test_a_timeline_by_hand() -> None:
    timeline = Timeline(1024, 64)
    load, work, store = Cycles("dma", 10, 5), Cycles("mac", 100), Cycles("dma", 20, 5)
    assert timeline.add(load, [], [(0, 64)]) == 0
    assert timeline.add(load, [], [(128, 192)]) == 10  # the engine is free, the first bytes are still under way
    assert timeline.add(work, [(0, 64)], [(256, 300)]) == 15
    assert timeline.add(load, [], [(0, 64)]) == 115  # not before it has been read
    assert timeline.add(store, [(256, 300)], []) == 125
    assert timeline.add(work, [(128, 192)], [(256, 300)]) == 150  # not before it has been stored
    assert timeline.add(Cycles("vector", 7), [(512, 600)], [(700, 800)]) == 0  # touches nothing of theirs


def test_summary_adds_up(chip: Chip) -> None:
    image = compile_graph(residual(), chip, batch_mode="one_buf", batches=[2, 4])
    summary, commands = summarise(image, chip), image.programs[1].commands
    assert summary.cycles == max(command.start + command.cycles for command in commands)
    assert summary.latency == pytest.approx(summary.cycles / chip.clock_hz)
    assert summary.dram_bytes == summary.compulsory_bytes and summary.traffic_ratio == 1
    assert (summary.arena_peak, summary.arena_lower_bound, summary.gap) == (0, 0, 0)
    assert "0 bytes, lower bound 0, gap 0.00%" in summary.text()
    assert re.search(r"^batches +one_buf: 2, 4$", summary.text(), re.MULTILINE)
    up_to = replace(summary, batch_mode=BatchMode.N_BUF, batches=(4,))
    assert re.search(r"^batches +n_buf: up to 4$", up_to.text(), re.MULTILINE)
    assert 0 < summary.coded_weights == sum(len(chunk.data) for chunk in image.chunks) < summary.weights
    assert f"{summary.weights:,} bytes, {summary.coded_weights:,} coded" in summary.text()
    assert replace(summary, arena_peak=768, arena_lower_bound=512).gap == pytest.approx(0.5)


# -- inputs and outputs ------------------------------------------------------------------------------------------------
def test_descriptions_follow_the_metadata(chip: Chip) -> None:
    graph = two_inputs()
    graph.metadata["inputs"] = [
        {"name": "b", "input_format": "BGRA", "training_format": "RGB", "layout": "NCHW"}
        | {"mean": [1, 2, 3], "std": [4.0], "width_alignment": 16}
    ]
    graph.metadata["config"] = {"level": "L5"}
    image = through_file(graph, chip, category="Classification")
    first, second = image.inputs
    assert (first.format, first.training_format, first.mean, first.width_alignment) == ("RAWDATA_S16_NHWC",) * 2 + (
        (),
        1,
    )
    assert (second.format, second.training_format, second.layout) == ("BGRA", "RGB", "NCHW")
    assert (second.mean, second.std, second.width_alignment, second.height_alignment) == ((1, 2, 3), (4,), 16, 1)
    assert first.quant is not None and first.quant.same_codes(graph["a"].quant)
    assert (image.category, image.config, image.chip) == ("Classification", {"config": {"level": "L5"}}, chip.name)


BAD_FEEDS: dict[str, tuple[Any, str]] = {
    "missing": ({"a": np.zeros((1, 4, 3), np.int16)}, r"expected inputs \['a', 'b'\], got \['a'\]"),
    "type": ({"a": np.zeros((1, 4, 3)), "b": np.zeros((1, 1, 3), np.int16)}, "'a': expected int16.*got float64"),
    "shape": ({"a": np.zeros((1, 3, 4), np.int16), "b": np.zeros((1, 1, 3), np.int16)}, r"got int16\[1, 3, 4\]"),
    "uneven": ({"a": np.zeros((2, 4, 3), np.int16), "b": np.zeros((1, 1, 3), np.int16)}, r"got \[2, 1\]"),
    "too many": (
        {"a": np.zeros((3, 4, 3), np.int16), "b": np.zeros((3, 1, 3), np.int16)},
        "expected 1 to 2 frames, got 3",
    ),
    "none": ([], "expected 1 to 2 frames, got 0"),
}


@pytest.mark.parametrize(("feeds", "message"), BAD_FEEDS.values(), ids=BAD_FEEDS.keys())
def test_feeds_that_do_not_fit(feeds: Any, message: str, chip: Chip) -> None:
    engine = OfflineEngine(compile_graph(two_inputs(), chip, batches=2))
    with pytest.raises(ValueError, match=message):
        engine.run(feeds)


def test_batches_that_were_not_compiled(chip: Chip) -> None:
    engine = OfflineEngine(compile_graph(two_inputs(), chip, batch_mode="one_buf", batches=[2, 5]))
    feeds = code_feeds(two_inputs(), 0)
    with pytest.raises(ValueError, match="expected 2 or 5 frames, got 1"):
        engine.run(feeds)
    with pytest.raises(ValueError, match="expected 3 frames, got 2"):
        engine.run([feeds, feeds], batch=3)


def test_arrays_in_any_order_of_memory(chip: Chip) -> None:
    graph = residual()
    feeds = code_feeds(graph, 1)
    turned = {name: np.asfortranarray(value) for name, value in feeds.items()}
    engine = OfflineEngine(compile_graph(graph, chip))
    first, second = engine.run(feeds), engine.run(turned)
    assert all(np.array_equal(first[name], second[name]) for name in first)


# -- what is refused ---------------------------------------------------------------------------------------------------
def float_graph() -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 5, 7, 6))
    y = build("ADD", build("RELU", x, name="rectify"), x, name="sum", activation="NONE")
    return build.output(y)


def large_window() -> Graph:
    f = Fixed()
    return f.done(f.conv(f.input("x", (1, 50, 50, 1), DType.UINT8), 2, 9))


def twice() -> Graph:
    graph = two_inputs()
    graph.outputs *= 2
    return graph


def empty() -> Graph:
    graph = two_inputs()
    graph["a"].shape = graph[graph.outputs[0]].shape = (1, 0, 3)
    return graph


def nine_axes() -> Graph:
    f = Fixed()
    return f.done(f.table(f.input("x", (1, 2, 1, 2, 1, 2, 1, 2, 3))))


def scale_per_channel() -> Graph:
    f = Fixed()
    x = f.input("x", (1, 4, 3))
    x.quant = QuantParams(np.ones(3), np.zeros(3, np.int32), 2)
    return f.done(f("ADD", x, x, activation="NONE"))


def no_scale() -> Graph:
    f = Fixed()
    x = f.build.input("x", (1, 4, 3), DType.INT16)
    return f.done(f("ADD", x, x, activation="NONE"))


def moved_to_another_type() -> Graph:
    f = Fixed()
    x = f.input("x", (1, 4, 3))
    return f.done(f("CONCATENATION", x, x, axis=2, dtype=DType.UINT8))


def moved_to_another_scale() -> Graph:
    f = Fixed()
    return f.done(f("TRANSPOSE", f.input("x", (1, 4, 3)), perm=(0, 2, 1), bound=9.0))


def computed(op: str, shape: tuple[int, ...], dtype: DType, **attrs: Any) -> Callable[[], Graph]:
    """An operator whose constant operand is computed."""

    def make() -> Graph:
        f = Fixed()
        x = f.input("x", (1, 5, 5, 3), DType.UINT8 if dtype is DType.INT8 else DType.INT16)
        other = f.build.input("w", shape, dtype)
        bias = [f.build.constant("b", np.zeros(4, np.int32))] if op == "CONV_2D" else []
        return f.done(f(op, x, other, *bias, **attrs))

    return make


WINDOW = dict(strides=(1, 1), dilations=(1, 1), pads=(0,) * 4, activation="NONE")


def product(size: int, value: int, dtype: DType, weights: DType, bias: int = 0) -> Callable[[], Graph]:
    """A product with so many equal weights."""

    def make() -> Graph:
        f = Fixed()
        x = f.input("x", (1, size), dtype)
        quant = symmetric_params(np.ones(2), weights)
        data = np.full((2, size), value, weights.numpy)
        w = f.build.graph.add_constant("w", data, quant=quant, dtype=weights)
        b = f.build.constant("b", np.array([bias, 0], np.int64))
        return f.done(f("FULLY_CONNECTED", x, w, b, activation="NONE", keep_num_dims=True))

    return make


def no_bias() -> Graph:
    graph = packed_weights()
    graph.nodes[0].inputs.pop()
    return graph


def short_table() -> Graph:
    f = Fixed()
    return f.done(f("TABLE", f.input("x", (1, 4, 3)), f.build.constant("t", np.zeros(256, np.int16))))


def picture_of_codes() -> Graph:
    f = Fixed()
    table = f.build.constant("t", np.zeros((256, 3), np.int16))
    return f.done(f("NORMALISE_IMAGE", f.input("x", (1, 4, 5, 3)), table, order=(2, 1, 0), axis=3, size=(4, 5)))


REFUSED: dict[str, tuple[Callable[[], Graph], dict[str, Any], list[str]]] = {
    "float graph": (float_graph, {}, ["2 problems", "RELU 'rectify': computes in floating point", "ADD 'sum'"]),
    "large window": (large_window, {}, ["CONV_2D", "fewer than 64 taps"]),
    "4 bit weights": (
        packed_weights,
        {"chip": "ifado"},
        ["breaks a limit of ifado", "number formats: uint8, int16"],
    ),
    "nine axes": (nine_axes, {}, ["TABLE", "Tensors have at most 8 axes"]),
    "scale per channel": (scale_per_channel, {}, ["ADD", "have one scale and one zero point"]),
    "no scale": (no_scale, {}, ["ADD", "have a scale and a zero point"]),
    "moved to another type": (moved_to_another_type, {}, ["CONCATENATION", "keeps their type, scale and zero point"]),
    "moved to another scale": (moved_to_another_scale, {}, ["TRANSPOSE", "keeps their type, scale and zero point"]),
    "computed weight": (computed("CONV_2D", (4, 3, 3, 3), DType.INT8, **WINDOW), {}, ["weight and the bias are const"]),
    "computed table": (
        computed("TABLE", (513,), DType.INT16),
        {},
        ["The table is a constant, of 256 entries"],
    ),
    "short table": (short_table, {}, ["of 513, 1,025, 2,049 or 4,097 for INT16"]),
    "picture of codes": (picture_of_codes, {}, ["Pictures are UINT8"]),
    "no bias": (no_bias, {}, ["CONV_2D", "has a bias"]),
    "8 × 16 bit": (product(9, 1, DType.UINT8, DType.INT16), {}, ["UINT8 activations take INT8 or INT4 weights"]),
    "INT8 activations": (product(9, 1, DType.INT8, DType.INT8), {}, ["INT16 activations INT16, INT8 or INT4 weights"]),
    "long sums": (product(66_312, 127, DType.UINT8, DType.INT8), {}, ["No sum can leave the accumulator", "2^31"]),
    "large bias": (product(9, 1, DType.UINT8, DType.INT8, 1 << 31), {}, ["No sum can leave the accumulator"]),
    "large 16-bit bias": (product(9, 1, DType.INT16, DType.INT16, 1 << 53), {}, ["No sum can leave the accumulator"]),
    "empty tensor": (empty, {}, ["holds nothing", "'a'"]),
    "output twice": (twice, {}, ["tensor 'mul': is an output more than once"]),
    "mode": (two_inputs, {"batch_mode": "two_buf"}, ["'two_buf' is not one of n_buf, one_buf"]),
    "n_buf list": (two_inputs, {"batches": [1, 2]}, ["n_buf takes one number"]),
    "zero": (two_inputs, {"batches": 0}, ["'0' is not in the range 1 to"]),
    "too large": (two_inputs, {"batch_mode": "one_buf", "batches": [1, 1 << 20]}, ["1048576"]),
    "no size": (two_inputs, {"batch_mode": "one_buf", "batches": []}, ["not in the range"]),
    "11 sizes": (two_inputs, {"batch_mode": "one_buf", "batches": range(1, 12)}, ["11 batch sizes"]),
    "category": (two_inputs, {"category": "Cats"}, ["'Cats' is not one of Classification, Detection, Unknown"]),
}


@pytest.mark.parametrize(("make", "options", "parts"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(make: Callable[[], Graph], options: dict[str, Any], parts: list[str]) -> None:
    options = dict(options)
    chip = load_chip(options.pop("chip", "ibopper"))
    with pytest.raises(UserError) as caught:
        compile_graph(make(), chip, **options)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_sums_may_just_fit(chip: Chip) -> None:
    for make in (
        product(66_311, 127, DType.UINT8, DType.INT8),
        product(9, 1, DType.UINT8, DType.INT8, (1 << 31) - 9 * 255 - 1),
        product(9, 1, DType.INT16, DType.INT16, (1 << 53) - 9 * 32768 - 1),
    ):
        compile_graph(make(), chip)


def test_ranks_are_those_that_transfers_have(chip: Chip) -> None:
    assert f"at most {LARGEST_AXES} axes" in told_by(ranks_fit)
    f = Fixed()
    x = f("RESHAPE", f.input("x", (1, 2, 1, 2, 1, 2, 1, 2, 3)), shape=(2, 2, 1, 2, 1, 2, 1, 3), bound=4.0)
    y = f("TRANSPOSE", x, perm=tuple(reversed(range(8))), bound=4.0)
    check_frames(graph := f.done(f.table(y)), through_file(graph, chip), 1)


def test_unknown_operators_say_where_the_list_is(chip: Chip) -> None:
    graph = two_inputs()
    graph.nodes[0].op = "TELEPORT"
    with pytest.raises(UserError, match=r"operator TELEPORT is unknown \(docs/OPERATORS.md lists"):
        compile_graph(graph, chip)
    with pytest.raises(UserError, match=r"operator TELEPORT has no cost rule \(docs/OPERATORS.md lists"):
        COST["TELEPORT"]


def test_limits_of_a_chip_name_its_figures(chip: Chip) -> None:
    small = replace(chip, max_kernel=2, max_stride=1, max_dilation=1)
    with pytest.raises(UserError, match="A window is at most 2 high and wide") as caught:
        compile_graph(residual(), small)
    assert str(caught.value).startswith("compile: 2 problems")


def test_limits_of_windows_are_for_windows(chip: Chip) -> None:
    f = Fixed()
    x = f.input("x", (1, 100, 3))
    y = f("STRIDED_SLICE", x, begin=(0, 1, 0), end=(1, 100, 3), strides=(1, chip.max_stride + 9, 1))
    y.quant = x.quant
    compile_graph(f.done(y), chip)
    small = replace(chip, max_kernel=1, max_stride=1)
    for op in ("TRANSPOSE_CONV", "MAX_POOL_2D"):
        with pytest.raises(UserError, match=r"Strides are at most 1"):
            compile_graph(next(g for _, g in fixed_variants(op) if max(g.nodes[-1].attrs["strides"]) > 1), small)


def test_an_image_of_an_unknown_operator(chip: Chip) -> None:
    image = compile_graph(two_inputs(), chip)
    strange = replace(image, kernels=tuple(replace(kernel, opcode="TELEPORT") for kernel in image.kernels))
    with pytest.raises(UserError, match="TELEPORT"):
        OfflineEngine(strange).run(code_feeds(two_inputs(), 0))
