"""The .sim format: what is written is read back, LiteRT computes the same, and damaged files are refused in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

import sgs.ops  # noqa: F401 - fills the tables
from litert_judge import litert_results
from sgs.builder import GraphBuilder
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.ir.graph import Graph, Node
from sgs.numeric.quantise import Array, QuantParams, quantise, symmetric_params
from sgs.numeric.types import DType
from sgs.registry import EXAMPLES, OPERATOR, SIM
from sgs.sim import expect_stage, read_sim, sim_bytes, write_sim
from sgs.sim.generated import Model, ModelT
from sgs.sim.spelling import spell, unspell
from sgs.sim.write import stored

CASES = [(op, index) for op in EXAMPLES for index in range(len(EXAMPLES[op]()))]
FLOAT_CASES = [(op, index) for op, index in CASES if OPERATOR[op].stage != "fixed"]
LITERT_CASES = [
    (op, index) for op, index in FLOAT_CASES if not any(SIM[node.op].custom for node in EXAMPLES[op]()[index].nodes)
]


def read_bytes(data: bytes, folder: Path) -> Any:
    path = folder / "model.sim"
    path.write_bytes(data)
    return read_sim(path)


# ---- comparison ------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Attrs as a flatbuffer holds them: reals in binary32."""
    if isinstance(value, float):
        return float(np.float32(value))
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


def nodes_of(graph: Graph) -> list[tuple[Any, ...]]:
    return [
        (n.op, n.name, n.inputs, n.outputs, {key: (type(value), plain(value)) for key, value in n.attrs.items()})
        for n in graph.nodes
    ]


def quant_of(quant: QuantParams | None) -> Any:
    if quant is None:
        return None
    vectors = (quant.scale, quant.zero_point, quant.low, quant.high)
    return [quant.axis, *((vector.dtype, vector.tolist()) for vector in vectors)]


def assert_equal(one: Graph, other: Graph) -> None:
    assert (one.name, one.metadata) == (other.name, other.metadata)
    assert (one.inputs, one.outputs) == (other.inputs, other.outputs)
    assert nodes_of(one) == nodes_of(other)
    assert list(one.tensors) == list(other.tensors)
    for name, tensor in one.tensors.items():
        twin = other[name]
        assert (tensor.name, tensor.shape, tensor.dtype) == (twin.name, twin.shape, twin.dtype)
        assert quant_of(tensor.quant) == quant_of(twin.quant), name
        if tensor.data is None or twin.data is None:
            assert tensor.data is twin.data
        else:
            assert tensor.data.dtype == twin.data.dtype
            assert np.array_equal(tensor.data, twin.data), name


# ---- every operator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "index"), CASES)
def test_what_is_written_is_read(op: str, index: int, tmp_path: Path) -> None:
    graph = EXAMPLES[op]()[index]
    graph.name = "network"
    graph.metadata = {"inputs": [{"name": "x", "mean": [1.5, 2]}], "source": "größe"}
    for number, node in enumerate(graph.nodes):
        node.name = f"layer {number}"
    stage = "fixed" if OPERATOR[op].stage == "fixed" else "float"
    write_sim(graph, tmp_path / "model.sim", stage=stage)
    back = read_sim(tmp_path / "model.sim")
    assert back.stage == stage
    assert_equal(back.graph, graph)
    assert sim_bytes(back.graph, stage) == (tmp_path / "model.sim").read_bytes()


@pytest.mark.parametrize(("op", "index"), [case for case in CASES if OPERATOR[case[0]].stage == "both"])
def test_the_same_in_integers(op: str, index: int, tmp_path: Path) -> None:
    """Real numbers in attrs come back as far as the file's codes can say them, hence bytes are compared."""
    graph = EXAMPLES[op]()[index]
    params = symmetric_params(3.0, DType.INT16)
    for tensor in graph.tensors.values():
        if tensor.dtype is DType.FLOAT32:
            tensor.dtype, tensor.quant = DType.INT16, params
            tensor.data = None if tensor.data is None else quantise(tensor.data, params, DType.INT16)
    data = sim_bytes(graph, "fixed")
    back = read_bytes(data, tmp_path).graph
    assert list(back.tensors) == list(graph.tensors)
    assert sim_bytes(back, "fixed") == data


def random_feeds(graph: Graph) -> dict[str, Array]:
    """Real numbers around 0; integers that are legal indices."""
    rng = np.random.default_rng(7)
    inputs = [graph[name] for name in graph.inputs]
    return {t.name: rng.uniform(-3 * t.dtype.is_float, 3, t.shape).astype(t.dtype.numpy) for t in inputs}


@pytest.mark.parametrize(("op", "index"), LITERT_CASES)
def test_litert_agrees(op: str, index: int) -> None:
    graph = EXAMPLES[op]()[index]
    feeds = random_feeds(graph)
    ours, theirs = FloatEngine(graph).run(feeds), litert_results(sim_bytes(graph, "float"), feeds)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        span = float(np.ptp(expected.astype(np.float64))) if expected.size else 1.0
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-5 * span, err_msg=name)


# ---- spelling --------------------------------------------------------------------------------------------------------
def convolution(pads: tuple[int, int, int, int], activation: str = "NONE", dtype: DType = DType.FLOAT32) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 9, 8, 3), dtype)
    x.quant = None if dtype.is_float else QuantParams(np.array([0.1]), np.array([3]))
    weight = np.random.default_rng(1).normal(0, 1, (5, 3, 3, 3)).astype(np.float32)
    attrs = {"strides": (2, 1), "dilations": (1, 1), "pads": pads, "activation": activation}
    y = build("CONV_2D", x, weight, np.arange(5, dtype=np.float32), output="y", **attrs)
    return build.output(y)


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.UINT8], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(
    ("pads", "activation", "operators"),
    [
        ((0, 0, 0, 0), "NONE", ["CONV_2D"]),
        ((1, 1, 1, 1), "RELU6", ["CONV_2D"]),
        ((0, 1, 2, 1), "NONE", ["PAD", "CONV_2D"]),
        ((1, 1, 1, 1), "RELU_0_TO_1", ["CONV_2D", "RELU_0_TO_1"]),
        ((2, 0, 0, 0), "RELU_0_TO_1", ["PAD", "CONV_2D", "RELU_0_TO_1"]),
    ],
)
def test_pads_and_activations(pads: Any, activation: str, operators: list[str], dtype: DType, tmp_path: Path) -> None:
    graph = convolution(pads, activation, dtype)
    assert [node.op for node in spell(graph).nodes] == operators
    assert_equal(read_bytes(sim_bytes(graph, "float"), tmp_path).graph, graph)
    if dtype.is_float:
        feeds = random_feeds(graph)
        theirs = litert_results(sim_bytes(graph, "float"), feeds)
        np.testing.assert_allclose(FloatEngine(graph).run(feeds)["y"], theirs["y"], rtol=1e-4, atol=1e-4)


def mean(pads: tuple[int, int, int, int], padded: bool = False) -> Graph:
    build = GraphBuilder()
    x = build.input("x", (1, 10, 7, 3))
    x = build("PAD", x, output="x/pad:y", paddings=((0, 0), (1, 1), (1, 1), (0, 0))) if padded else x
    window = {"kernel": (3, 3), "strides": (2, 1), "pads": pads, "activation": "NONE"}
    return build.output(build("AVERAGE_POOL_2D", x, output="y", **window))


def test_pads_of_a_mean(tmp_path: Path) -> None:
    """Zeros of a PAD in front would count, so other pads than VALID and SAME are refused, and no PAD becomes pads."""
    for graph in (mean((0, 0, 0, 0)), mean((0, 1, 1, 1)), mean((0, 0, 0, 0), padded=True)):
        assert_equal(read_bytes(sim_bytes(graph, "float"), tmp_path).graph, graph)
    with pytest.raises(ValueError, match=r"pads \(1, 1, 1, 1\) of a mean are neither VALID nor SAME"):
        spell(mean((1, 1, 1, 1)))


def test_parts_are_refused() -> None:
    """What a compiler makes of a node may say more than the file can."""
    build = GraphBuilder()
    x = build.input("x", (1, 3, 7, 2))
    flags = {"align_corners": False, "half_pixel_centers": True}
    y = build("RESIZE_BILINEAR", x, size=(4, 14), window=((2, 0, 5, 10), (0, 0, 7, 14)), **flags)
    with pytest.raises(ValueError, match="a part of a resize"):
        spell(build.output(y))
    build = GraphBuilder()
    x, weight = build.input("x", (1, 3, 7, 2)), np.ones((4, 3, 3, 2), np.float32)
    window = {"strides": (2, 2), "size": (4, 15), "pads": (2, 0, 1, 0), "activation": "NONE"}
    y = build("TRANSPOSE_CONV", x, weight, None, **window)
    with pytest.raises(ValueError, match="neither VALID nor SAME"):
        spell(build.output(y))


def test_names_that_are_taken(tmp_path: Path) -> None:
    """A network may use the names under which the writer sets pads, activations and constants apart."""
    graph = convolution((3, 0, 0, 0), "RELU_0_TO_1")
    for name in ("x/pad:y", "y/linear", "x/pad:y/paddings"):
        graph.add_tensor(name, (1, 2), DType.FLOAT32)
    assert_equal(read_bytes(sim_bytes(graph, "float"), tmp_path).graph, graph)


def test_a_pad_of_the_network_stays(tmp_path: Path) -> None:
    """Only a PAD that the writer set apart is folded: not one that has a second reader."""
    graph = convolution((3, 0, 0, 0))
    file = spell(graph)
    assert [node.op for node in file.nodes] == ["PAD", "CONV_2D"]
    file.outputs.append("x/pad:y")
    unspell(file)
    assert [node.op for node in file.nodes] == ["PAD", "CONV_2D"]


# ---- tensors and buffers ---------------------------------------------------------------------------------------------


def every_type() -> Graph:
    rng = np.random.default_rng(3)
    graph = Graph("types")
    for dtype in DType:
        data = rng.integers(-7, 8, (3, 5, 1)).astype(dtype.numpy)
        graph.add_constant(dtype.name, data, dtype=dtype)
    int4 = graph["INT4"]
    int4.quant = symmetric_params(np.arange(1, 6), DType.INT4, axis=1)
    graph.add_constant("empty", np.zeros((0, 3), np.float32))
    graph.add_tensor("scalar", (), DType.FLOAT32, data=np.float32(2.5).reshape(()))
    graph.add_constant("empty once more", np.zeros((2, 0), np.int16))
    x = graph.add_tensor("x", (1, 2), DType.INT16, quant=QuantParams(np.array([0.5]), np.array([-3])))
    graph.inputs, graph.outputs = [x.name], [x.name]
    return graph


@pytest.mark.parametrize("external_above", [0, 1 << 30], ids=["external", "inline"])
def test_every_type(external_above: int, tmp_path: Path) -> None:
    graph = every_type()
    write_sim(graph, tmp_path / "types.sim", stage="fixed", external_above=external_above)
    assert_equal(read_sim(tmp_path / "types.sim").graph, graph)
    assert (tmp_path / "types.sim").read_bytes() == sim_bytes(graph, "fixed", external_above=external_above)


def test_int4_is_packed_low_nibble_first() -> None:
    data = np.array([[1, -1, 7], [-7, 3, -8], [2, 0, -2]], np.int8)
    assert stored(data, DType.INT4).tobytes().hex() == "f19783020e"


def test_equal_constants_share_a_buffer_and_all_are_aligned() -> None:
    graph = Graph()
    for name in "abc":
        graph.add_constant(name, np.full(100, 1 + (name == "c"), np.float32))
    data = sim_bytes(graph, "float")
    model = ModelT.InitFromObj(Model.GetRootAs(data))
    a, b, c = (tensor.buffer for tensor in model.subgraphs[0].tensors)
    assert a == b != c
    base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    for buffer in model.buffers[1:]:
        assert (buffer.data.__array_interface__["data"][0] - base) % 16 == 0


def test_external_buffers_run_in_litert(tmp_path: Path) -> None:
    graph = convolution((2, 1, 0, 1), "RELU")
    data = sim_bytes(graph, "float", external_above=0)
    model = ModelT.InitFromObj(Model.GetRootAs(data))
    offsets = [buffer.offset for buffer in model.buffers if buffer.offset]
    assert len(offsets) == 3  # paddings, weight, bias
    assert all(offset % 16 == 0 for offset in offsets)
    assert_equal(read_bytes(data, tmp_path).graph, graph)
    feeds = random_feeds(graph)
    theirs = litert_results(data, feeds)["y"]
    np.testing.assert_allclose(FloatEngine(graph).run(feeds)["y"], theirs, rtol=1e-4, atol=1e-4)


def test_a_scalar_stays_a_scalar(tmp_path: Path) -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 4, 6, 3))
    graph = build.output(build("MUL", x, np.array(-1.5, np.float32), output="y", activation="NONE"))
    assert graph["mul/const1"].shape == ()
    assert_equal(read_bytes(sim_bytes(graph, "float"), tmp_path).graph, graph)
    feeds = random_feeds(graph)
    assert np.array_equal(litert_results(sim_bytes(graph, "float"), feeds)["y"], feeds["x"] * np.float32(-1.5))


def test_same_graph_same_bytes() -> None:
    assert sim_bytes(convolution((2, 1, 0, 1)), "float") == sim_bytes(convolution((2, 1, 0, 1)), "float")


def test_constants_are_views(tmp_path: Path) -> None:
    weight = read_bytes(sim_bytes(convolution((0, 0, 0, 0)), "float"), tmp_path).graph["conv_2d/const1"].data
    assert weight is not None
    assert not weight.flags.owndata
    assert not weight.flags.writeable


def test_the_writers_own_metadata_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="stage"):
        sim_bytes(Graph(metadata={"stage": "fixed"}), "float")


# ---- files that are wrong --------------------------------------------------------------------------------------------


def small_file() -> bytes:
    graph = convolution((2, 1, 0, 1), "RELU_0_TO_1")
    graph.metadata = {"inputs": [{"name": "x"}]}
    build = GraphBuilder(graph)
    table = np.arange(513, dtype=np.int16)
    build.output(build("TABLE", graph["y"], table, output="z", function="x", bounds=(1, 2.5)))
    graph["z"].quant = QuantParams(np.array([0.5]), np.array([0]), 0, np.float32([-1]), np.float32([1]))
    return sim_bytes(graph, "fixed")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_sim(tmp_path / "none.sim")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="directory"):
        read_sim(tmp_path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"x", r"identifier TFL3 \(give the path of a .sim file\)"),
        (b"\x08\x07" + bytes(200), "identifier TFL3"),
        (b"SGSIMG\0\1" + bytes(200), "offline .img"),
        (b"\x1c\0\0\0TFL3", r"damaged or cut off \(write it again"),
        (b"\x1c\0\0\0TFL3" + bytes(200), "0 subgraphs"),
    ],
)
def test_not_a_sim(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        read_bytes(data, tmp_path)
    assert (caught.value.stage, caught.value.file) == ("read .sim", str(tmp_path / "model.sim"))


def edited(change: Any) -> bytes:
    """The small file after a change to its object form."""
    model = ModelT.InitFromObj(Model.GetRootAs(small_file()))
    change(model)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def set_to(record: Any, **fields: Any) -> None:
    for name, value in fields.items():
        assert hasattr(record, name)
        setattr(record, name, value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: set_to(m.subgraphs[0].tensors[0], shape=[1, 2**31 - 1, 2**31 - 1, 8]), "absurd"),
        (lambda m: set_to(m.subgraphs[0].tensors[0], shape=[1, -9, 8, 3]), "is not one"),
        (lambda m: set_to(m.subgraphs[0].tensors[0], shape=[1, 9, 9, 3]), "gives shapes"),
        (lambda m: set_to(m.subgraphs[0].tensors[1], shape=[5, 3, 3, 4]), "takes 720 bytes, but its buffer has 540"),
        (lambda m: set_to(m.subgraphs[0].tensors[1], buffer=99), "names buffer 99"),
        (lambda m: set_to(m.subgraphs[0].tensors[1], type=1), "FLOAT16 is not supported"),
        (lambda m: set_to(m.subgraphs[0].tensors[1], type=77), "element type 77"),
        (lambda m: set_to(m.subgraphs[0].tensors[1], isVariable=True), "variable"),
        (lambda m: set_to(m.subgraphs[0], inputs=[0, 99]), "inputs name tensor 99"),
        (lambda m: set_to(m.subgraphs[0], outputs=[-1]), "outputs leave one out"),
        (lambda m: set_to(m.subgraphs[0], inputs=[]), "before it is defined"),
        (lambda m: m.subgraphs[0].operators.reverse(), "before it is defined"),
        (lambda m: m.subgraphs.append(m.subgraphs[0]), "2 subgraphs"),
        (lambda m: set_to(m.subgraphs[0].operators[1], opcodeIndex=9), "of kind 9"),
        (lambda m: set_to(m.subgraphs[0].operators[1], inputs=[0, 1]), "gives shapes"),
        (lambda m: set_to(m.subgraphs[0].operators[1], outputs=[]), "has no result"),
        (lambda m: set_to(m.subgraphs[0].operators[1].builtinOptions, strideH=0), "do not fit together"),
        (lambda m: set_to(m.subgraphs[0].operators[1].builtinOptions, padding=5), "padding 5 is not known"),
        (lambda m: set_to(m.subgraphs[0].operators[1].builtinOptions, fusedActivationFunction=4), "activation TANH"),
        (lambda m: set_to(m.subgraphs[0].operators[-1], customOptions=b"\xff\xff\xff"), "options cannot be read"),
        (lambda m: set_to(m.metadata[0], buffer=0), "not JSON"),
        (lambda m: set_to(m.buffers[m.metadata[0].buffer], data=b'"futuristic"'), "stage 'futuristic' is not known"),
        (lambda m: set_to(m.buffers[m.metadata[2].buffer], data=b"[1]"), "does not map"),
        (lambda m: set_to(m.subgraphs[0].tensors[5].quantization, scale=[-1.0]), "finite and positive"),
        (lambda m: set_to(m.subgraphs[0].tensors[5].quantization, scale=[1.0, 1.0]), "2 scales"),
        (lambda m: set_to(m.subgraphs[0].tensors[5].quantization, zeroPoint=[2**40]), "zero point"),
        (lambda m: set_to(m.buffers[1], data=None, offset=1 << 40, size=540), "its data end at byte"),
    ],
)
def test_contradictions(change: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        read_bytes(edited(change), tmp_path)


def test_the_edited_file_is_sound(tmp_path: Path) -> None:
    assert read_bytes(edited(lambda model: None), tmp_path).graph["z"].quant is not None


def test_all_unknown_operators_are_named(tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.operatorCodes[1].builtinCode = model.operatorCodes[1].deprecatedBuiltinCode = 16
        model.operatorCodes[-1].customCode = "Mystery"

    with pytest.raises(UserError, match=r"LSTM \(1\), custom operator Mystery \(1\)"):
        read_bytes(edited(change), tmp_path)


def test_a_plain_tflite_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a .tflite model, not a .sim \(ConvertTool.py tflite makes"):
        read_bytes(edited(lambda model: set_to(model, metadata=None)), tmp_path)


def test_the_wrong_stage(tmp_path: Path) -> None:
    sim = read_bytes(sim_bytes(convolution((0, 0, 0, 0)), "float"), tmp_path)
    assert expect_stage(sim, "float", "the calibrator") is sim.graph
    assert expect_stage(sim, ("debug", "float"), "the calibrator") is sim.graph
    with pytest.raises(UserError, match=r"is a float .sim; the compiler needs a fixed .sim \(run calibrator.py"):
        expect_stage(sim, "fixed", "the compiler")


def damaged() -> Iterator[bytes]:
    data, rng = small_file(), np.random.default_rng(5)
    for end in rng.integers(0, len(data), 300):
        yield data[:end]
    for position, bit in zip(rng.integers(0, len(data), 300), rng.integers(0, 8, 300), strict=True):
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        yield bytes(flipped)


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    refused = 0
    for data in damaged():
        try:
            read_bytes(data, tmp_path)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 2000
    assert refused > 250


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    graph = Graph(nodes=[Node("NO_SUCH_OPERATOR", [], ["y"])])
    with pytest.raises(UserError):
        write_sim(graph, tmp_path / "model.sim", stage="float")
    assert not list(tmp_path.iterdir())
