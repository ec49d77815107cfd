"""How near outputs are to those of the float network: the one measure that calibration decides by.

An output may join results that have little to do with each other: boxes, which are large, and scores, most of which
are next to nothing. Taken together the boxes are all that counts. So an output counts half as a whole, and half by its
parts, each over its own energy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sgs.engine.lowering import SessionBuilder, session_options
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.quant.edit import moved_operands
from sgs.quant.prepare import kind_of
from sgs.registry import FLOAT

Parts = Mapping[str, Array]


def output_parts(graph: Graph) -> dict[str, Array]:
    """Output → which part each of its elements belongs to, int [elements]: results that operators which only move
    values have joined are parts of their own. Zeros where nothing is joined. `graph` is a float or a prepared one."""
    movers = {n: node for node in graph.nodes if kind_of(node) == "move" for n in node.outputs}
    found = {}
    for name in graph.outputs:
        chain, sources = _moved(name, movers)
        sources = [source for source in sources if not graph[source].is_constant]
        joined = len(sources) > 1 and all(graph[source].dtype.is_float for source in sources)
        found[name] = _labels(graph, name, chain, sources) if joined else np.zeros(graph[name].elements, np.int64)
    return found


def _moved(name: str, movers: Mapping[str, Node]) -> tuple[list[Node], list[str]]:
    """The moving operators behind a tensor, last first, and what they move."""
    chain: dict[int, Node] = {}
    sources, waiting = dict[str, None](), [name]
    while waiting:
        name = waiting.pop()
        if name in movers:
            node = movers[name]
            chain.pop(id(node), None)
            chain[id(node)] = node
            waiting += moved_operands(node)
        else:
            sources[name] = None
    return list(chain.values()), list(sources)


def _labels(graph: Graph, name: str, chain: list[Node], sources: list[str]) -> Array:
    """The number of the source that each element of a tensor comes from, by moving numbers instead of values."""
    builder = SessionBuilder(graph)
    for source in sources:
        builder.feed(source, "native")
    wanted = {id(node) for node in chain}
    for node in graph.nodes:
        if id(node) in wanted:
            FLOAT[node.op](builder, node)
    session = builder.finish({name: "native"}, session_options(1))
    feeds = {f"in:{source}": np.full(graph[source].shape, k, np.float32) for k, source in enumerate(sources)}
    (labels,) = session.run([f"out:{name}"], feeds)
    return np.unique(np.rint(labels), return_inverse=True)[1].reshape(-1)


def energies(truth: Array, value: Array, part: Array) -> Array:
    """Σ truth² and Σ (value - truth)² of every part of an output, float64 [parts, 2]."""
    exact = truth.reshape(-1).astype(np.float64)
    squares = exact**2, (value.reshape(-1) - exact) ** 2
    if not part.any():
        return np.array([[square.sum() for square in squares]])
    return np.stack([np.bincount(part, square) for square in squares], axis=1)


def relative_error(table: Array) -> float:
    """Of one output, from its `energies` [parts, 2]: noise over signal, half of the whole, half the mean over the parts
    that have a signal, where no part counts as more than lost altogether."""
    signal, noise = table.sum(0)
    parts = table[table[:, 0] > 0]
    if not len(parts):
        return float(noise / 1e-30)
    own = np.minimum(parts[:, 1] / parts[:, 0], 1.0).mean() if len(parts) > 1 else noise / signal
    return float((noise / signal + own) / 2)


def decibels(table: Array) -> float:
    """Of one output, from the `energies` of many samples, [samples, parts, 2]: signal to noise, dB, half of the whole,
    half the mean over the parts that have a signal."""
    parts = [part for part in np.moveaxis(table, 1, 0) if part[:, 0].any()]
    whole = _decibels(table.sum(1))
    return (whole + float(np.mean([_decibels(part) for part in parts]))) / 2 if len(parts) > 1 else whole


def _decibels(table: Array) -> float:
    """Half that of all samples together, half the mean of their own, so that neither few loud samples decide nor many
    quiet ones; [samples, 2]. A sample counts as at least a tenth as loud as the samples are on average, no ratio as
    more than 120 dB."""
    signal, noise = table.T
    heard = np.maximum(signal, 0.1 * signal.mean())
    ratios = -10 * np.log10(np.maximum(np.append(noise / heard, noise.sum() / signal.sum()), 1e-12))
    return float((ratios[:-1].mean() + ratios[-1]) / 2)
