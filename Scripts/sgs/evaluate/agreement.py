"""Does a float graph compute what the framework of its source computes? Both are run on the same random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sgs.engine import FloatEngine
from sgs.errors import UserError, raise_all
from sgs.frontends.onnx_layout import SourceLayout, SourceLayouts
from sgs.frontends.onnx_model import Judge, SourceModel
from sgs.ir import Graph
from sgs.ir.permute import NCHW_TO_NHWC, NHWC_TO_NCHW
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops.gather import indexed_entries

SAMPLES = 2
_SEED = 20
Layouts = Mapping[str, SourceLayout]


@dataclass(frozen=True)
class Agreement:
    """How far an output is from the framework's: the largest difference as a share of the output's range (largest minus
    smallest value), over all samples."""

    output: str
    framework: str
    difference: float

    @property
    def text(self) -> str:
        return f"verify: output '{self.output}' is {self.difference:.1e} of its range from {self.framework}'s"


def compare(graph: Graph, source: SourceModel, layouts: Layouts, source_layouts: Layouts) -> list[Agreement]:
    """How far each output of a float graph is from what `source.judge` says, on random inputs.

    `layouts`: of the graph's rank-4 inputs and outputs; `source_layouts`: of the source's, where its structure says
    otherwise. Raises UserError for outputs that are further than the judge's bound, and for a part of a network.
    """
    judge = source.judge
    assert judge is not None
    _check_whole(graph, source, judge)
    there = SourceLayouts(source.proto, {**source.layouts, **source_layouts})
    engine, rng = FloatEngine(graph), np.random.default_rng(_SEED)
    entries = indexed_entries(graph)
    worst = dict.fromkeys(graph.outputs, 0.0)
    for _ in range(SAMPLES):
        feeds = {name: _random(graph, name, entries.get(name, 2), rng) for name in graph.inputs}
        turned = {name: _turned(feed, layouts.get(name, "NHWC"), there.of_input(name)) for name, feed in feeds.items()}
        expected, found = judge.run(turned), engine.run(feeds)
        for name in worst:
            wanted = _turned(expected[name], there.of_output(name), layouts.get(name, "NHWC"))
            worst[name] = max(worst[name], _difference(found[name], wanted))
    result = [Agreement(name, judge.framework, difference) for name, difference in worst.items()]
    raise_all([_apart(source, found, judge) for found in result if not found.difference <= judge.bound])
    return result


def _check_whole(graph: Graph, source: SourceModel, judge: Judge) -> None:
    inputs, outputs = ({port.name for port in side} for side in (source.inputs, source.outputs))
    if set(graph.inputs) != inputs or not set(graph.outputs) <= outputs:
        reason = f"--verify compares with {judge.framework}'s run of the whole network, of which a part is meant"
        raise UserError(
            reason, stage="verify", file=source.path, remedy="leave out --verify, or --inputs and --outputs"
        )


def _random(graph: Graph, name: str, entries: int, rng: np.random.Generator) -> Array:
    """Values for an input: normally distributed, or indices of a table of so many entries."""
    tensor = graph[name]
    if tensor.dtype.is_float:
        return rng.standard_normal(tensor.shape).astype(np.float32)
    return rng.integers(0, 2 if tensor.dtype is DType.BOOL else entries, tensor.shape).astype(tensor.dtype.numpy)


def _turned(value: Array, here: SourceLayout, there: SourceLayout) -> Array:
    if value.ndim != 4 or here == there:
        return value
    return np.ascontiguousarray(value.transpose(NHWC_TO_NCHW if there == "NCHW" else NCHW_TO_NHWC))


def _difference(found: Array, wanted: Array) -> float:
    """The largest difference as a share of the range of `wanted`; values that are not finite must be the same."""
    if found.shape != wanted.shape:
        return float("inf")
    ours, theirs = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return float("inf")
    if not finite.any():
        return 0.0
    span = np.ptp(theirs[finite]) or np.abs(theirs[finite]).max() or 1.0
    gap = np.abs(ours[finite] - theirs[finite]).max()
    return float(gap / span) if np.isfinite(gap) else float("inf")


def _apart(source: SourceModel, found: Agreement, judge: Judge) -> UserError:
    reason = f"{found.text.removeprefix('verify: ')}, more than {judge.bound:.0e}"
    remedy = "report it with the file; without --verify the .sim is written all the same"
    return UserError(reason, stage="verify", file=source.path, remedy=remedy)
