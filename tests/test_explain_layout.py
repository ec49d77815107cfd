"""Why Transposes are left: what is said of each."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from onnx_snippets import Net, residual
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.passes.explain_layout import explain_layout, stop_above, stops_below
from sgs.passes.pipeline import optimise


def explained(model: ModelProto) -> list[str]:
    written = {node.name for node in model.graph.node if node.op_type == "Transpose"}
    imported = import_model(normalised(model, Path("m.onnx")))
    graph = imported.copy()
    optimise(graph)
    return explain_layout(imported, graph, written)


def by_rows() -> ModelProto:
    """conv → relu → Transpose that no layout needs → softmax over rows."""
    net = Net()
    y = net("Relu", net.conv(net.input("x", 1, 3, 6, 8), 3, 5))
    return net.model(net("Softmax", net("Transpose", y, perm=[0, 2, 1, 3]), axis=-1, result="y"))


def to_vector() -> ModelProto:
    """A picture flattened in the order of the source, for an output."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 8), 3, 5)
    return net.model(net("Reshape", y, net.constant([1, 240]), result="y"))


def test_nothing_is_left_of_a_plain_network() -> None:
    (line,) = explained(residual())
    assert line.startswith("Transposes: 0 in the model, ") and line.endswith("; 0 left")


def test_a_transpose_of_the_author_is_told_by_its_name() -> None:
    head, line, behind = explained(by_rows())
    assert head.startswith("Transposes: 1 in the model, ") and head.endswith("; 2 left")
    assert behind.endswith("below, the output 'y' is in this order")
    assert "it is the model's own 'node_transpose2'" in line
    assert "CONV_2D 'node_conv0'" in line and "above, " in line and "below, " in line


def test_a_boundary_of_layouts_is_told_by_its_operator() -> None:
    _, line = explained(to_vector())
    assert "between CONV_2D 'node_conv0' and RESHAPE" in line
    assert "it was added where the layouts of 'node_conv0' meet" in line
    assert "above, CONV_2D 'node_conv0' " in line and "below, " in line


def test_stops_count_what_could_be_passed() -> None:
    net = Net()
    x = net.input("x", 4, 6, 8)
    y = net("Sigmoid", net("Transpose", net("Relu", x), perm=[2, 0, 1]), result="y")
    graph = import_model(normalised(net.model(y), Path("m.onnx")))
    node = next(node for node in graph.nodes if node.op == "TRANSPOSE")
    above, (below,) = stop_above(graph, node), stops_below(graph, node)
    assert (above.tensor, above.node, above.passed) == ("x", None, 1)
    assert (below.tensor, below.node, below.passed) == ("y", None, 1)


def test_an_operand_that_would_have_to_be_transposed_instead() -> None:
    net = Net()
    a, b = net.input("a", 4, 6, 8), net.input("b", 8, 4, 6)
    y = net("Mul", net("Transpose", a, perm=[2, 0, 1]), b, result="y")
    graph = import_model(normalised(net.model(y), Path("m.onnx")))
    (below,) = stops_below(graph, graph.nodes[0])
    assert below.reason == "also reads 'b', of which 192 elements would have to be transposed instead"
