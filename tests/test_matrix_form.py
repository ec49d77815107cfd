"""Sums of products as products of matrices: the same numbers as the float engine, on every example."""

import numpy as np
import pytest

from sgs.engine import FloatEngine
from sgs.ops._mac import real_bounds
from sgs.registry import EXAMPLES, MATRIX, QUANTISE

CASES = [(op, k) for op in MATRIX for k in range(len(EXAMPLES[op]()))]


def test_every_sum_of_products_has_a_matrix_form() -> None:
    assert set(MATRIX) == {op for op in QUANTISE if QUANTISE[op].kind == "mac"}


@pytest.mark.parametrize(("op", "index"), CASES)
def test_rows_times_matrix_is_the_operator(op: str, index: int) -> None:
    graph = EXAMPLES[op]()[index]
    node = next(n for n in graph.nodes if n.op == op)
    x, weight, result = graph[node.inputs[0]], graph[node.inputs[1]], graph[node.outputs[0]]
    if not x.dtype.is_float:
        pytest.skip("an integer example")
    rng = np.random.default_rng(index)
    feeds = {name: rng.normal(size=graph[name].shape).astype(np.float32) for name in graph.inputs}
    values = FloatEngine(graph, extra=[x.name, result.name]).run(feeds)
    form = MATRIX[op](node, x, weight, result)
    operand = values[x.name] if x.name in values else feeds[x.name]
    samples = x.shape[0] if len(x.shape) == 4 else 1
    chosen = rng.permutation(form.positions * samples)[:50]
    matrix = form.matrix(weight.data.astype(np.float64))
    assert np.array_equal(form.weights(matrix), weight.data)
    every = form.rows(operand[:1] if len(x.shape) == 4 else operand, np.arange(form.positions))
    assert np.allclose(form.mean(operand[:1] if len(x.shape) == 4 else operand), every.mean(0), rtol=1e-4, atol=1e-6)
    found = np.einsum("pgd,gdo->pgo", form.rows(operand, chosen), matrix).reshape(len(chosen), -1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = found + graph[node.inputs[2]].data
    low, high = real_bounds(node.attrs.get("activation", "NONE"))
    found = np.clip(found, low, high) if (low, high) != (None, None) else found
    wanted = values[result.name].reshape(-1, found.shape[1])[chosen]
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
