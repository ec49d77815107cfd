"""ONNX control flow, sequences and operators that are defined by others: solved at import, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_compare import assert_same
from onnx_snippets import Net
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.ir import Graph
from sgs.passes.pipeline import optimise
from sgs.registry import IMPORT_ONNX


def imported(model: ModelProto) -> Graph:
    return import_model(normalised(model, Path("net.onnx")), skip_simplify=True)


def body(name: str, inputs: Sequence[str], outputs: Sequence[str], *nodes: NodeProto, **constants: Any) -> GraphProto:
    """i and j count steps, go is a condition."""
    kinds = {"i": TensorProto.INT64, "j": TensorProto.INT64, "go": TensorProto.BOOL}
    values = [
        [
            helper.make_tensor_value_info(n, kinds[n], ()) if n in kinds else helper.make_empty_tensor_value_info(n)
            for n in names
        ]
        for names in (inputs, outputs)
    ]
    return helper.make_graph(list(nodes), name, *values, [numpy_helper.from_array(v, n) for n, v in constants.items()])


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def assert_imported(net: Net, *outputs: str) -> Graph:
    """The graph computes what onnxruntime makes of the network, before and after it is optimised."""
    model = net.model(*outputs)
    graph = imported(model)
    assert_same(graph, model)
    optimise(graph)
    assert_same(graph, model)
    return graph


def looping(trips: Any = 3, keep: Any = True, *, limit: int = 99) -> tuple[Net, list[str]]:
    """s = s · w + x for every trip, until `limit`; the values on the way are scanned."""
    net = Net()
    x, start = net.input("x", 2, 5), net.input("s", 2, 5)
    inner = body(
        "step",
        ["i", "go", "s"],
        ["on", "next", "seen"],
        node("Mul", "s w", "scaled"),
        node("Add", "scaled x", "next"),
        node("Less", "i last", "on"),
        node("Identity", "next", "seen"),
        w=np.float32(0.5) * np.ones(5, np.float32),
        last=np.array(limit, np.int64),
    )
    operands = [v if isinstance(v, str) else net.constant(v) for v in (trips, keep)]
    assert x
    return net, net("Loop", *operands, start, outputs=2, body=inner)


@pytest.mark.parametrize(("trips", "keep", "limit"), [(3, True, 99), (9, True, 3), (1, "", 99), ("", True, 2)])
def test_a_loop_is_written_out(trips: Any, keep: Any, limit: int) -> None:
    net, results = looping(trips, keep, limit=limit)
    graph = assert_imported(net, *results)
    steps = {3: 3, 9: 4, 1: 1, "": 3}[trips]
    assert [made.op for made in graph.nodes].count("MUL") == steps
    assert graph[results[1]].shape == (steps, 2, 5)


def test_loops_that_never_run_keep_what_they_carry() -> None:
    net, results = looping(0)
    graph = imported(net.model(net("Relu", results[0])))
    assert [made.op for made in graph.nodes] == ["RELU"]


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"trips": 5000}, "takes more than 1024 steps"),
        ({"trips": "n"}, "its number of steps 'n' is computed"),
        ({"trips": 0}, "never runs, so that 'loop.*' is empty"),
    ],
)
def test_loops_that_are_refused(form: dict[str, Any], told: str) -> None:
    net, results = looping(**form, limit=10_000)
    if form["trips"] == "n":
        net.input("n", dtype=TensorProto.INT64)
    with pytest.raises(UserError, match=told):
        imported(net.model(*results))


def test_bodies_inside_bodies_read_what_is_around_them() -> None:
    net = Net()
    x = net.input("x", 2, 5)
    nodes = [node("Add", "t s", "v"), node("Mul", "v x", "u"), node("Identity", "go", "on")]
    deepest = body("deep", ["j", "go", "t"], ["on", "u"], *nodes)
    branch = body("taken", [], ["r"], node("Loop", "two yes s", "r", body=deepest))
    other = body("other", [], ["o"], node("Identity", "s", "o"))
    taken = node("If", "yes", "q", then_branch=branch, else_branch=other)
    step = body("step", ["i", "go", "s"], ["on", "q"], taken, node("Identity", "go", "on"))
    net.initializers += [numpy_helper.from_array(np.array(v), n) for n, v in (("two", 2), ("yes", True))]
    assert_imported(net, net("Loop", "two", "yes", x, body=step))


@pytest.mark.parametrize("turn", [0, 1])
def test_a_scan_is_written_out(turn: int) -> None:
    net = Net()
    start, x, y = net.input("s", 3), net.input("x", 3, 4), net.input("y", 5, 4, 3)
    inner = body(
        "step",
        ["s", "a", "b"],
        ["t", "seen"],
        node("Add", "s a", "t"),
        node("Mul", "b t", "seen"),
    )
    attrs = {
        "num_scan_inputs": 2,
        "scan_input_axes": [1, 1],
        "scan_output_axes": [-1],
        "scan_output_directions": [turn],
    }
    assert_imported(net, *net("Scan", start, x, y, outputs=2, body=inner, scan_input_directions=[turn, 0], **attrs))


def test_an_if_with_a_computed_condition_selects() -> None:
    net = Net()
    x, sum_ = net.input("x", 2, 5), net("ReduceSum", net.input("z", 2, 5), keepdims=0)
    branches = {
        "then_branch": body("yes", [], ["r"], node("Relu", "x", "r")),
        "else_branch": body("no", [], ["r"], node("Neg", "x", "r")),
    }
    assert x
    condition = net("Greater", sum_, net.constant(0, np.float32))
    assert_imported(net, net("If", condition, **branches))
    branches["else_branch"] = body("no", [], ["r"], node("Flatten", "x", "r", axis=0))
    net.nodes.pop()
    with pytest.raises(UserError, match=r"branches give shapes \(2, 5\) and \(1, 10\)"):
        imported(net.model(net("If", condition, **branches)))


def test_sequences_are_lists_of_values() -> None:
    net = Net()
    x, y = net.input("x", 4, 6), net.input("y", 4, 6)
    pair = net("SequenceInsert", net("SequenceConstruct", x, y), net("Relu", x), net.constant(-1))
    pair = net("SequenceErase", pair, net.constant(0))
    joined = net("ConcatFromSequence", pair, axis=1)
    stacked = net("ConcatFromSequence", pair, axis=-1, new_axis=1)
    parts = net("SplitToSequence", joined, net.constant(5), axis=1)
    count = net("SequenceLength", parts)
    last = net("SequenceAt", parts, net.constant(-1))
    graph = assert_imported(net, joined, stacked, last, count)
    assert (graph[joined].shape, graph[stacked].shape, graph[last].shape) == ((4, 12), (4, 6, 2), (4, 2))


def test_sequences_that_leave_the_network_are_refused() -> None:
    net = Net()
    x = net.input("x", 4, 6)
    model = net.model(net("SequenceConstruct", x, x, result="both"))
    with pytest.raises(UserError, match="output 'both' is a sequence"):
        imported(model)


@pytest.mark.parametrize(
    ("op", "told"), [("StringNormalizer", "it works on text"), ("ai.onnx.ml.Scaler", "classical machine learning")]
)
def test_operators_without_a_meaning_are_refused_with_the_reason(op: str, told: str) -> None:
    net = Net()
    domain, _, name = op.rpartition(".")
    with pytest.raises(UserError, match=f"operator {op} is not supported: .*{told}"):
        imported(net.model(net(name, net.input("x", 3, 5), domain=domain)))


# ---- operators that the standard defines by others ---------------------------------------------------------------


def without(monkeypatch: pytest.MonkeyPatch, *ops: str) -> None:
    known = {op: row for op, row in IMPORT_ONNX._rows.items() if op not in ops}
    monkeypatch.setattr(IMPORT_ONNX, "_rows", known)
    names = frozenset(known) | {"Constant", "ConstantOfShape", "Range", "Shape", "Size"}
    monkeypatch.setattr("sgs.frontends.onnx_walk._KNOWN", names)


def test_bodies_know_the_types_of_operands_inside_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "LayerNormalization", "Gelu")
    net = Net(opset=20)
    x = net("Flatten", net("Relu", net.input("x", 3, 5, 4)), axis=2)
    y = net("LayerNormalization", x, net.weights(4), net.weights(4), axis=-1, epsilon=1e-3)
    assert_imported(net, net("Gelu", y, approximate="tanh"))


def test_bodies_may_be_inside_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", "LogSoftmax")
    net = Net()
    assert_imported(net, net("SoftmaxCrossEntropyLoss", net.input("x", 3, 5), net.constant([1, 4, 0])))


def test_an_operator_whose_body_is_not_supported_is_refused_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "Gelu", "Erf")
    net = Net(opset=20)
    with pytest.raises(UserError, match="operator Gelu is not supported"):
        imported(net.model(net("Gelu", net.input("x", 3, 5))))


@pytest.mark.parametrize("op", ["Identity", "If", "Loop", "SequenceAt", "SplitToSequence"])
def test_nodes_without_operands_are_refused(op: str) -> None:
    port = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(op, [], ["y"], name="bare")], "net", [], [port])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UserError, match="bare"):
        imported(model)


# ---- how much --------------------------------------------------------------------------------------------------------


def test_loops_inside_loops_have_one_limit() -> None:
    net = Net()
    x = net.input("x", 2)
    net.initializers += [numpy_helper.from_array(np.array(v), n) for n, v in (("times", 60), ("yes", True))]
    inner, read = [node("Neg", "t2", "u2")], "u2"
    for depth in (2, 1, 0):
        made = body(f"b{depth}", ["i", "go", f"t{depth}"], ["on", read], *inner, node("Identity", "go", "on"))
        read = f"r{depth}"
        inner = [node("Loop", f"times yes {f't{depth - 1}' if depth else x}", read, body=made)]
    net.nodes += inner
    with pytest.raises(UserError, match="come to more than 50000 nodes"):
        imported(net.model(read))


def test_functions_that_call_each_other_have_a_limit() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(7):
        op, domain = ("Neg", "") if level == 0 else (f"f{level - 1}", "own")
        calls = [helper.make_node(op, [f"v{k}"], [f"v{k + 1}"], domain=domain) for k in range(10)]
        functions.append(helper.make_function("own", f"f{level}", ["v0"], ["v10"], calls, opsets))
    ports = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("f6", ["x"], ["y"], domain="own")], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
    with pytest.raises(UserError, match="functions come to more than 200000 nodes"):
        imported(model)
    del model.functions[3:]
    model.graph.node[0].op_type = "f2"
    assert len(imported(model).nodes) == 1000


def test_names_that_the_model_has_itself_are_not_taken() -> None:
    net = Net()
    x = net.input("x", 4, 3)
    own = net("Neg", x, result="q/0")
    net("SplitToSequence", x, np.array(2), result="q", axis=0)
    with pytest.raises(UserError, match="defines 'q/0', as the model does"):
        imported(net.model(net("SequenceAt", "q", np.array(0)), own))


def test_a_scan_may_read_one_tensor_along_two_axes() -> None:
    net = Net()
    start, x = net.input("s", 3), net.input("x", 3, 3)
    inner = body("step", ["s", "a", "b"], ["t"], node("Add", "s a", "u"), node("Mul", "u b", "t"))
    assert_imported(net, net("Scan", start, x, x, body=inner, num_scan_inputs=2, scan_input_axes=[0, 1]))
