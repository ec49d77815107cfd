"""Fixed forms of the operators' float examples, for tests that run them through engines, files and the compiler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

import sgs.ops  # noqa: F401  fills the tables
from sgs.config.input_config import ConvSpec
from sgs.ir import Graph
from sgs.numeric.quantise import Array, activation_params, quantise
from sgs.numeric.types import DType
from sgs.ops._expansion import expanded
from sgs.quant.edit import build_fixed, mac_nodes, moved_operands
from sgs.quant.levels import Calibration
from sgs.quant.prepare import kind_of
from sgs.quant.statistics import measure_extrema
from sgs.registry import EXAMPLES, OPERATOR


def float_feeds(graph: Graph, seed: int, low: float = -3.0, high: float = 3.0) -> dict[str, Array]:
    """Random values for the inputs of a float graph; integer inputs get small non-negative numbers."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name in graph.inputs:
        tensor = graph[name]
        if tensor.dtype.is_float:
            feeds[name] = rng.uniform(low, high, tensor.shape).astype(tensor.dtype.numpy)
        else:
            feeds[name] = rng.integers(0, 3, tensor.shape).astype(tensor.dtype.numpy)
    return feeds


def code_feeds(graph: Graph, seed: int) -> dict[str, Array]:
    """Random codes over the whole range for the inputs of a fixed graph, real numbers where an input is float."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name in graph.inputs:
        tensor = graph[name]
        if tensor.dtype.is_float:
            feeds[name] = rng.uniform(-4, 4, tensor.shape).astype(np.float32)
        elif tensor.dtype is DType.BOOL:
            feeds[name] = rng.integers(0, 2, tensor.shape).astype(np.bool_)
        else:
            feeds[name] = rng.integers(tensor.dtype.qmin, tensor.dtype.qmax + 1, tensor.shape).astype(
                tensor.dtype.numpy
            )
    return feeds


def quantised(graph: Graph, bits: int) -> Graph:
    """The example through the quantiser, every sum of products at `bits`, ranges from a few random feeds."""
    feeds = [float_feeds(graph, seed) for seed in range(3)]
    calibration = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(), threads=1)
    plan = calibration.initial_plan()
    return build_fixed(
        calibration.prepared, replace(plan, macs={name: replace(mac, bits=bits) for name, mac in plan.macs.items()})
    )


def as_uint8(graph: Graph) -> Graph:
    """A graph of moving operators with UINT8 activations, all with the same parameters."""
    fixed = graph.copy()
    params = activation_params(-1.5, 3.0, DType.UINT8)
    for tensor in fixed.activations():
        if tensor.dtype.is_float:  # not integers of the network's own
            tensor.dtype, tensor.quant = DType.UINT8, params
    for node in fixed.nodes:
        for name in moved_operands(node):
            data = fixed[name].data
            if data is not None and data.dtype == np.float32:
                fixed[name].data, fixed[name].dtype, fixed[name].quant = (
                    quantise(data, params, DType.UINT8),
                    DType.UINT8,
                    params,
                )
    return fixed


def fixed_variants(op: str) -> Iterator[tuple[str, Graph]]:
    """(label, fixed graph) for every example of an operator and every type it can have."""
    if OPERATOR[op].no_integers:
        return
    for index, graph in enumerate(map(expanded, EXAMPLES[op]())):
        if OPERATOR[op].stage == "fixed" or all(tensor.dtype is DType.BOOL for tensor in graph.activations()):
            yield f"{op}-{index}", graph
            continue
        if any(not graph[name].dtype.is_float and graph[name].dtype is not DType.BOOL for name in graph.inputs):
            continue  # any integer would have to be a legal one
        macs = bool(list(mac_nodes(graph)))
        for bits in (4, 8, 16) if macs else (16,):
            yield f"{op}-{index}-{bits}bit", quantised(graph, bits)
        if all(kind_of(node) == "move" for node in graph.nodes):
            yield f"{op}-{index}-uint8", as_uint8(graph)


def all_fixed_variants() -> list[tuple[str, Graph]]:
    """Every operator's fixed forms."""
    return [variant for op in OPERATOR for variant in fixed_variants(op)]
