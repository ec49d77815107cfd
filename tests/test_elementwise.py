"""Elementwise operators: expressions that become one table, functions at the ends of their domains, integers at the
ends of their range, and masks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from fixed_examples import float_feeds, quantised
from onnx_compare import assert_same, save
from onnx_snippets import Net
from sgs.builder import GraphBuilder
from sgs.compile import compile_graph
from sgs.config.chips import load_chip
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.frontends.onnx_import import import_onnx
from sgs.img import OfflineEngine, image_bytes, parse_image
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array, QuantParams, activation_params, dequantise, quantise
from sgs.numeric.table import build_table, expand
from sgs.numeric.types import DType
from sgs.ops import _elementwise
from sgs.passes.pipeline import optimise
from sgs.quant.boundary import codes_of_inputs
from sgs.quant.prepare import FUNCTION, prepare

# -- one tensor, one table ---------------------------------------------------------------------------------------------


def gelu_by_erf(net: Net, x: str) -> str:
    half = net("Mul", x, np.float32(0.5))
    return net("Mul", half, net("Add", net("Erf", net("Div", x, np.float32(np.sqrt(2)))), np.float32(1)))


def leaky_by_where(net: Net, x: str) -> str:
    return net("Where", net("Greater", x, np.float32(0)), x, net("Mul", x, np.float32(0.1)))


def counted(net: Net, x: str) -> str:
    """Sign by casts of comparisons."""
    sides = [net("Cast", net(op, x, np.float32(0)), to=TensorProto.FLOAT) for op in ("Greater", "Less")]
    return net("Sub", *sides)


def power(net: Net, x: str) -> str:
    return net("Pow", net("Pow", x, np.float32(2)), np.float32(1.5))


EXPRESSIONS: dict[str, Callable[[Net, str], str]] = {
    "gelu": gelu_by_erf,
    "where": leaky_by_where,
    "sign": counted,
    "power": power,
    **{op: lambda net, x, op=op: net(op, x) for op in ("Mish", "Softplus", "Selu", "Celu", "Elu")},
    **{op: lambda net, x, op=op: net(op, x) for op in ("Shrink", "ThresholdedRelu", "Softsign")},
    "masked": lambda net, x: net("Where", net("Not", net("IsNaN", x)), net("Sin", x), np.float32(7)),
}


@pytest.mark.parametrize("write", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_an_expression_of_one_tensor_is_one_table(write: Callable[[Net, str], str], tmp_path: object) -> None:
    net = Net(opset=18)
    model = net.model(write(net, net.input("x", 1, 5, 7, 6)))
    graph = import_onnx(save(model, tmp_path))  # type: ignore[arg-type]
    optimise(graph)
    assert_same(graph, model, low=-6, high=6)
    assert [node.op for node in prepare(graph).nodes] == [FUNCTION]
    assert [node.op for node in quantised(graph, 16).nodes] == ["TABLE"]


# -- ends of a domain --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [np.sqrt, np.log, lambda x: 1 / np.sqrt(x), np.arccosh, lambda x: 1 / x])
@pytest.mark.parametrize("kind", [DType.INT16, DType.UINT8])
def test_tables_hold_the_nearest_number(function: Callable[[Array], Array], kind: DType) -> None:
    params_in, params_out = activation_params(-4, 4, kind), activation_params(-8, 8, DType.INT16)
    results = expand(build_table(function, params_in, kind, params_out, DType.INT16), kind, DType.INT16)
    codes = np.arange(kind.qmin, kind.qmax + 1)
    real = (codes - int(params_in.zero_point[0])) * float(params_in.scale[0])
    with np.errstate(all="ignore"):
        truth = np.asarray(function(real))
    below = np.roll(results, -kind.qmin)[np.isnan(truth)]
    assert not below.size or (below == below[0]).all()
    far = np.abs(real) > 1.2
    there = far & np.isfinite(truth)
    found = np.roll(results, -kind.qmin)[there] * float(params_out.scale[0])
    assert np.abs(found - np.clip(truth[there], -8, 8)).max() < 0.002


def test_what_is_nowhere_a_number_has_no_table() -> None:
    params = activation_params(-4, 4, DType.INT16)
    with pytest.raises(ValueError, match="nowhere a number"):
        build_table(lambda x: np.full(x.shape, np.nan), params, DType.INT16, params, DType.INT16)


# -- integers ----------------------------------------------------------------------------------------------------------
ENDS = np.array([-(2**31), -(2**31) + 1, -7, -1, 0, 1, 7, 2**31 - 1], np.int32)


def of_two(op: str) -> Graph:
    build = GraphBuilder()
    x, y = (build.input(name, (8, 1) if name == "x" else (8,), DType.INT32) for name in "xy")
    attrs = {"activation": "NONE"} if op in ("ADD", "SUB", "MUL", "DIV") else {}
    return build.output(build(op, x, y, output="z", **attrs))


def truth_of(op: str, a: int, b: int) -> int:
    b = b or 1 if op in ("DIV", "FLOOR_DIV", "FLOOR_MOD") else b
    shift = b if 0 <= b <= 32 else 32
    exact: dict[str, Callable[[], int]] = {
        "ADD": lambda: a + b,
        "SUB": lambda: a - b,
        "MUL": lambda: a * b,
        "DIV": lambda: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
        "FLOOR_DIV": lambda: a // b,
        "FLOOR_MOD": lambda: a % b,
        "MAXIMUM": lambda: max(a, b),
        "SQUARED_DIFFERENCE": lambda: (a - b) ** 2,
        "LEFT_SHIFT": lambda: a << shift,
        "RIGHT_SHIFT": lambda: a >> shift,
        "BITWISE_XOR": lambda: a ^ b,
        "LESS": lambda: a < b,
    }
    value = int(exact[op]())
    return (value + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize(
    "op",
    ["ADD", "SUB", "MUL", "DIV", "FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "SQUARED_DIFFERENCE", "LEFT_SHIFT"]
    + ["RIGHT_SHIFT", "BITWISE_XOR", "LESS"],
)
def test_integers_at_the_ends_of_their_range(op: str) -> None:
    graph, feeds = of_two(op), {"x": ENDS[:, None], "y": ENDS}
    truth = [[truth_of(op, int(a), int(b)) for b in ENDS] for a in ENDS]
    for run in (FloatEngine(graph).run, FixedEngine(graph).run, lambda values: run_reference(graph, values)):
        assert run(feeds)["z"].tolist() == truth


def test_real_numbers_saturate_when_cast() -> None:
    build = GraphBuilder()
    graph = build.output(build("CAST", build.input("x", (5,)), output="y", to="INT32"))
    feeds = {"x": np.array([-3e9, -1.9, 1.9, 2.5, 3e9], np.float32)}
    for run in (FloatEngine(graph).run, lambda values: run_reference(graph, values)):
        assert run(feeds)["y"].tolist() == [-(2**31), -1, 1, 2, 2**31 - 128]


def cast_of_codes(real: Array, params: QuantParams, dtype: DType) -> list[Array]:
    """INT32 of the codes of real numbers [N]: by reference, engine and image."""
    build = GraphBuilder()
    x = build.input("x", real.shape, dtype)
    x.quant = params
    graph = build.output(build("CAST", x, output="y", to="INT32"))
    image = parse_image(image_bytes(compile_graph(graph, load_chip("pcupid"))))
    feeds = {"x": quantise(real, params, dtype)}
    runs = (partial(run_reference, graph), FixedEngine(graph).run, OfflineEngine(image).run)
    return [run(feeds)["y"] for run in runs]


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(DType.INT16, -16000, 16000), (DType.INT16, -3, 13), (DType.UINT8, -5, 100)]
)
def test_whole_numbers_survive_the_cast_of_their_codes(dtype: DType, low: int, high: int) -> None:
    """Though some codes lie below them; steps are 0.49, 0.0004 and 0.41."""
    params, whole = activation_params(low, high, dtype), np.arange(low, high + 1, dtype=np.float32)
    held = dequantise(quantise(whole, params, dtype), params)
    assert not np.array_equal(np.trunc(held), whole)
    for found in cast_of_codes(whole, params, dtype):
        assert np.array_equal(found, whole)


def test_codes_beside_no_whole_number_are_truncated() -> None:
    params = activation_params(-7, 7, DType.INT16)
    step = float(params.scale[0])
    real = np.array([0.5, -0.5, 1.25, -1.9, 2.99, 3 - 2 * step, 3 - step, -4 + step, -4 + 2 * step], np.float32)
    for found in cast_of_codes(real, params, DType.INT16):
        assert found.tolist() == [0, 0, 1, -1, 2, 2, 3, -4, -3]


def test_operands_of_different_types_are_refused() -> None:
    build = GraphBuilder()
    with pytest.raises(ValueError, match="different types"):
        build("MAXIMUM", build.input("x", (3,)), build.input("y", (3,), DType.INT32))
    with pytest.raises(ValueError, match="ADD does not take boolean"):
        build("ADD", *[build.input("m", (3,), DType.BOOL)] * 2, activation="NONE")
    with pytest.raises(ValueError, match="take INT32, not INT8"):
        _elementwise.carrier_of(Tensor("t", (3,), DType.INT8))


def quant_of(tensor: Tensor) -> QuantParams:
    assert tensor.quant is not None
    return tensor.quant


# -- masks -------------------------------------------------------------------------------------------------------------


def selected(build: GraphBuilder, x: Tensor, y: Tensor, marker: float) -> Tensor:
    kept = build("GREATER", y, np.array([-2], np.float32))
    return build("SELECT_V2", kept, x, np.array(marker, np.float32), output="z")


def added(build: GraphBuilder, x: Tensor, y: Tensor, marker: float) -> Tensor:
    mask = np.triu(np.full((5, 5), marker, np.float32), 1)
    mask[np.tril_indices(5)] = 0
    total = build("ADD", x, y, activation="NONE")
    return build("ADD", total, mask, output="z", activation="NONE")


@pytest.mark.parametrize("masked", [selected, added])
@pytest.mark.parametrize("marker", [-1e4, -1e9, float(np.finfo(np.float32).min), -np.inf])
def test_a_marker_does_not_widen_the_range(
    masked: Callable[[GraphBuilder, Tensor, Tensor, float], Tensor], marker: float
) -> None:
    build = GraphBuilder()
    x, y = (build.input(name, (3, 5, 5)) for name in "xy")
    scores = build("RESHAPE", masked(build, x, y, marker), shape=(15, 5))
    graph = build.output(build("SOFTMAX", scores, output="p", beta=1.0))
    fixed, feeds = quantised(graph, 16), float_feeds(graph, 0)
    assert float(quant_of(fixed["z"]).scale[0]) < 1e-3
    truth, codes = FloatEngine(graph).run(feeds)["p"], run_reference(fixed, codes_of_inputs(fixed, feeds))["p"]
    assert np.abs(dequantise(codes, quant_of(fixed["p"])) - truth).max() < 5e-4
    assert not codes[truth == 0].any()


def test_large_values_that_all_count_are_no_mask() -> None:
    build = GraphBuilder()
    x = build.input("x", (3, 4))
    total = build("ADD", x, np.float32([-2e4, -3e4, -4e4, -2e4]), output="z", activation="NONE")
    chosen = build("SELECT_V2", build("GREATER", x, np.float32([0])), x, np.float32([2e4]), output="w")
    fixed = quantised(build.output(total, chosen), 16)
    assert min(float(quant_of(fixed[name]).scale[0]) * 32767 for name in "zw") > 1.9e4


def test_remainders_are_computed_not_looked_up() -> None:
    build = GraphBuilder()
    x = build("MUL", build.input("x", (3, 50)), np.float32([100]), activation="NONE")
    graph = build.output(build("FLOOR_MOD", x, np.float32([8]), output="y"))
    fixed, feeds = quantised(graph, 16), float_feeds(graph, 0)
    truth, codes = FloatEngine(graph).run(feeds)["y"], run_reference(fixed, codes_of_inputs(fixed, feeds))["y"]
    error = np.abs(dequantise(codes, quant_of(fixed["y"])) - truth)
    assert np.median(error) < 0.01 and np.mean(error > 1) < 0.02


@pytest.mark.parametrize("power", [1, 2])
def test_a_constant_exponent_may_widen_the_base(power: int, tmp_path: Path) -> None:
    net = Net()
    model = net.model(net("Pow", net.input("x", 3, 1), np.full((1, 4), power, np.float32)))
    assert_same(import_onnx(save(model, tmp_path)), model)
