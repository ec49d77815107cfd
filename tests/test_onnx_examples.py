"""The ONNX examples of all operators in integers: engine, reference and compiled form agree, and are near the float
network, or the calibrator refuses them for a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import sgs.ops  # noqa: F401  fills the tables
from random_graphs import NEED
from sgs.config.chips import Chip, load_chip
from sgs.config.input_config import ConvSpec
from sgs.engine import FixedEngine, FloatEngine, run_reference
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_model import normalised
from sgs.img import OfflineEngine
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.passes.pipeline import optimise
from sgs.pipelines import check_operators
from sgs.quant.boundary import codes_of_inputs, real_outputs
from sgs.quant.edit import mac_nodes
from sgs.quant.levels import Calibration
from sgs.quant.statistics import marked_tensors, measure_extrema
from sgs.quant.unrounded import unrounded
from sgs.registry import ONNX_EXAMPLES, OnnxCase
from test_compile import through_file
from test_onnx_import import one_node_model

SHARE = int(os.environ.get("SGS_EXAMPLES_SHARE", "3"))  # one case in so many, but the first of every operator
CASES = [(op, i) for op in ONNX_EXAMPLES for i in range(len(ONNX_EXAMPLES[op])) if i % SHARE == 0]
LEAST_SRAM = 6000  # bytes, for which not every piece is small enough

# Examples that integers cannot stand for, and a part of what the calibrator says.
REFUSED = {
    "reads its operand at places that the network computes": {("DeformConv", None), ("GridSample", 30)},
    "the largest of weighted values, has no integer form": {("RoiAlign", 2)},
    "writes to places that the network computes": {("MaxUnpool", None)},
    "chooses boxes by comparing ratios of areas": {("NonMaxSuppression", None)},
    "exponent or its base is one constant number": {("Pow", 7), ("Pow", 8)},
    "beta a multiple of 0.25": {("LRN", 1)},
    "works piece by piece cannot number": {("MaxPool", 15)},
    "codes of the source network's own": {
        *((op, None) for op in ("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger")),
        *((op, None) for op in ("QLinearConv", "QLinearMatMul", "QuantizeLinear", "com.microsoft.QGemm")),
        *((f"com.microsoft.QLinear{op}", None) for op in ("Add", "AveragePool", "Concat", "GlobalAveragePool")),
        *((f"com.microsoft.QLinear{op}", None) for op in ("LeakyRelu", "Mul", "Sigmoid")),
    },
}


def reason_to_refuse(op: str, index: int) -> str:
    """What the calibrator says of an example, "" where it takes it."""
    return next((why for why, cases in REFUSED.items() if {(op, index), (op, None)} & cases), "")


def float_graph(case: OnnxCase) -> Graph:
    """The example as a network whose outputs are real numbers: behind integers stands a CAST."""
    graph = import_model(normalised(one_node_model(case), Path("example.onnx")))
    optimise(graph)
    graph = unrounded(graph)
    for index, name in enumerate(graph.outputs):
        if not graph[name].dtype.is_float:
            real = graph.add_tensor(f"{name}/real", graph[name].shape, DType.FLOAT32)
            graph.nodes.append(Node("CAST", [name], [real.name], {"to": "FLOAT32"}, name))
            graph.outputs[index] = real.name
    return graph


def samples(graph: Graph, case: OnnxCase, count: int, seed: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)

    def value(name: str) -> Array:
        tensor, drawn = graph[name], rng.uniform(case.low, case.high, graph[name].shape)
        return drawn > (case.low + case.high) / 2 if tensor.dtype is DType.BOOL else drawn.astype(tensor.dtype.numpy)

    return [{name: value(name) for name in graph.inputs} for _ in range(count)]


@cache
def chips() -> tuple[Chip, ...]:
    small = load_chip("ifado")
    return load_chip("pcupid"), small, replace(small, name="tiny", sram_bytes=LEAST_SRAM)


def engines(core: Graph) -> Iterator[OfflineEngine]:
    """The offline simulator of every chip that is large enough."""
    for chip in chips():
        try:
            yield OfflineEngine(through_file(core, chip), threads=1)
        except UserError as error:
            assert chip.sram_bytes == LEAST_SRAM and NEED.search(str(error)), error


def cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.vdot(a, b)) / size if size else float(np.array_equal(a, b))


def check(graph: Graph, case: OnnxCase, bits: str | None) -> None:
    """Calibrate at L1, and compare on samples that were not calibrated with."""
    feeds = samples(graph, case, 6, 1)
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(input_format=bits), threads=1)
    core = work.fixed(work.run("L1"))
    fixed, real, offline = FixedEngine(core, threads=1), FloatEngine(graph, threads=1), list(engines(core))
    found: dict[str, list[Array]] = {name: [] for name in graph.outputs}
    wanted: dict[str, list[Array]] = {name: [] for name in graph.outputs}
    for sample in samples(graph, case, 2, 2):
        codes, truth = codes_of_inputs(core, sample), real.run(sample)
        values, reference = fixed.run(codes), run_reference(core, codes)
        results = [engine.run(codes) for engine in offline]
        numbers = real_outputs(core, values, core.outputs)
        for name in core.outputs:
            assert np.array_equal(values[name], reference[name]), name
            assert all(np.array_equal(result[name], values[name]) for result in results), name
            found[name].append(numbers[name].astype(np.float64).ravel())
            wanted[name].append(truth[name].astype(np.float64).ravel())
    for name in set(graph.outputs) - marked_tensors(graph):  # markers only have to lose, and saturate
        near = cosine(np.concatenate(found[name]), np.concatenate(wanted[name]))
        assert near >= (0.999 if bits else 0.99), (name, near)


@pytest.mark.parametrize(("op", "index"), CASES)
def test_example_in_integers(op: str, index: int) -> None:
    case, why = ONNX_EXAMPLES[op][index], reason_to_refuse(op, index)
    graph = float_graph(case)
    if why:
        with pytest.raises(UserError, match=why):
            check_operators(graph)
            check(graph, case, None)
        return
    check_operators(graph)
    if graph.inputs:
        check(graph, case, None)
        if any(mac_nodes(graph)):
            check(graph, case, "ALL_INT16")
