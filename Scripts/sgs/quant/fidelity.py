"""How near outputs are to those of the float network: the one measure that calibration decides by.

An output may join results that have little to do with each other: boxes, which are large, and scores, most of which
are next to nothing. Taken together the boxes are all that counts. So an output counts half as a whole, and half by its
parts, each over its own energy. What an operator selects from counts by that operator's yardstick: most boxes of a
detector are never looked at. Samples are floored alike: one counts as at least a tenth as loud as the samples are
on average, so that silence disturbed is not an infinite error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sgs.engine.lowering import SessionBuilder, session_options
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.quant.edit import moved_operands
from sgs.quant.prepare import kind_of
from sgs.quant.selection import selected, told_by
from sgs.registry import FLOAT, QUANTISE, YARDSTICK

_QUIETEST = 0.1  # of the mean energy of the samples
_NOTHING = 1e-12  # noise over signal: 120 dB


@dataclass(frozen=True, eq=False)
class Parts:
    """What an output is joined from: for each of its elements the number of its part, or `count` for constants, int
    [elements]."""

    labels: Array
    count: int


def judged(graph: Graph, prepared: Graph) -> Graph:
    """The float graph with outputs of real numbers that tell how near it is: in place of integers and truth values,
    which are right or wrong, and of what is `selected`, which is something else at once, the real results of the
    `prepared` graph that they are found from. The graph itself where there are no such.
    """
    produced, chosen = prepared.producers(), selected(prepared)

    def tells(name: str) -> bool:
        return prepared[name].dtype.is_float and name not in chosen

    if all(map(tells, graph.outputs)):
        return graph
    found, waiting = dict[str, None](), list(reversed(graph.outputs))
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        if name not in produced:
            continue
        if tells(name):
            found[name] = None
            continue
        operands = [operand for operand in told_by(prepared, produced[name]) if operand not in seen]
        waiting += reversed(operands)
        seen.update(operands)
    result = graph.copy()
    result.outputs = list(found) or graph.outputs
    return result


@dataclass(frozen=True, eq=False)
class Measure:
    """How an output is judged: by `parts`, None where it is one, and, where it is what an operator selects from, by the
    `YARDSTICK` of that `selector`, as its operand `place`."""

    name: str
    parts: Parts | None
    selector: Node | None = None
    place: int = 0

    def sizes(self, truths: Mapping[str, Array], value: Array) -> tuple[Array, Array]:
        """What counts as the signal and as the noise in every element, float64, flat, of one sample; `truths` has all
        outputs."""
        signal = truths[self.name].reshape(-1).astype(np.float64)
        noise = value.reshape(-1) - signal
        if self.selector is not None:
            operands = [truths.get(name or "") for name in self.selector.inputs]
            yardstick = YARDSTICK[self.selector.op](operands)[self.place]
            if yardstick is not None:
                unit, signal = (array.reshape(-1) for array in yardstick)
                noise = noise / unit
        return signal, noise


def measures(graph: Graph) -> dict[str, Measure]:
    """Output → how it is judged. `graph` is a float or a prepared one, its outputs those of `judged`."""
    readers = {
        name: (node, place)
        for node in graph.nodes
        if node.op in YARDSTICK
        for place, name in enumerate(node.inputs)
        if name is not None
    }
    return {name: Measure(name, parts, *readers.get(name, ())) for name, parts in output_parts(graph).items()}


def output_parts(graph: Graph) -> dict[str, Parts | None]:
    """Output → the results that operators which only move values have joined in it; None for those that are one.
    `graph` is a float or a prepared one."""
    movers = {name: node for node in graph.nodes if _only_moves(graph, node) for name in node.outputs}
    found: dict[str, Parts | None] = {}
    for name in graph.outputs:
        chain, sources = _moved(name, movers)
        parts = [source for source in sources if not graph[source].is_constant]
        joined = len(parts) > 1 and all(graph[source].dtype.is_float for source in sources)
        found[name] = _parts(graph, name, chain, parts, sources) if joined else None
    return found


def _only_moves(graph: Graph, node: Node) -> bool:
    """Whether where values go is known beforehand."""
    if kind_of(node) != "move" or QUANTISE[node.op].apart:
        return False
    moved = set(moved_operands(node))
    return all(name is None or name in moved or graph[name].is_constant for name in node.inputs)


def _moved(name: str, movers: Mapping[str, Node]) -> tuple[set[int], list[str]]:
    """Identities of the moving operators behind a tensor, and what they move."""
    chain: set[int] = set()
    sources, waiting = dict[str, None](), [name]
    while waiting:
        name = waiting.pop()
        node = movers.get(name)
        if node is None:
            sources[name] = None
        elif id(node) not in chain:
            chain.add(id(node))
            waiting += moved_operands(node)
    return chain, list(sources)


def _parts(graph: Graph, name: str, chain: set[int], parts: list[str], sources: list[str]) -> Parts:
    """By moving numbers of parts instead of values."""
    numbered = graph.copy()
    builder = SessionBuilder(numbered)
    for source in sources:
        numbered[source].data = None
        builder.feed(source, "native")
    for node, same in zip(graph.nodes, numbered.nodes, strict=True):
        if id(node) in chain:
            FLOAT[same.op](builder, same)
    session = builder.finish({name: "native"}, session_options(1))
    numbers = {source: k for k, source in enumerate(parts)}
    feeds = {f"in:{s}": np.full(graph[s].shape, numbers.get(s, len(parts)), np.float32) for s in sources}
    (moved,) = session.run([f"out:{name}"], feeds)
    labels = np.rint(moved).reshape(-1).astype(np.int64)
    labels[(labels < 0) | (labels > len(parts))] = len(parts)  # what some operator fills in
    return Parts(labels, len(parts))


def energies(measure: Measure, truths: Mapping[str, Array], value: Array) -> Array:
    """Σ signal² and Σ noise² of every part of an output, float64 [parts, 2], of one sample; `truths` are all of its
    outputs as the float network gives them."""
    squares = [size**2 for size in measure.sizes(truths, value)]
    parts = measure.parts
    if parts is None:
        return np.array([[square.sum() for square in squares]])
    sums = [np.bincount(parts.labels, square, parts.count + 1)[: parts.count] for square in squares]
    return np.stack(sums, axis=1)


def is_silent(table: Array) -> bool:
    """Whether an output, from the `energies` of its samples [samples, parts, 2], is zero on all of them."""
    return not table[..., 0].any()


def relative_error(table: Array) -> float:
    """Noise over signal of one output that is not silent, from the `energies` of its samples [samples, parts, 2]: the
    mean over samples; half of the whole, half the mean over the parts that have a signal, where no part counts as more
    than lost altogether."""
    whole, parts = _ratios(table.sum(1)).mean(), _heard(table)
    if len(parts) == 1:
        return float(whole)
    return float((whole + np.mean([np.minimum(_ratios(part), 1).mean() for part in parts])) / 2)


def decibels(table: Array) -> float:
    """Signal over noise of one output that is not silent, dB, from the `energies` of its samples [samples, parts, 2].

    Half that of all samples together, half the mean of their own, so that neither few loud samples decide nor many
    quiet ones; and half of the whole, half the mean over parts as in `relative_error`. No ratio counts as more than
    120 dB.
    """
    whole, parts = _decibels(table.sum(1), np.inf), _heard(table)
    return whole if len(parts) == 1 else (whole + float(np.mean([_decibels(part, 1.0) for part in parts]))) / 2


def _heard(table: Array) -> list[Array]:
    """[samples, 2] of the parts that have a signal."""
    return [part for part in np.moveaxis(table, 1, 0) if part[:, 0].any()]


def _ratios(table: Array) -> Array:
    """Noise over signal of each sample, [samples, 2] → [samples]."""
    signal, noise = table.T
    return np.asarray(noise / np.maximum(signal, _QUIETEST * signal.mean()))


def _decibels(table: Array, most: float) -> float:
    ratios = np.append(_ratios(table), table[:, 1].sum() / table[:, 0].sum())
    found = -10 * np.log10(np.clip(ratios, _NOTHING, most))
    return float((found[:-1].mean() + found[-1]) / 2)
