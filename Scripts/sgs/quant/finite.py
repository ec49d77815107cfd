"""Where values of a float network stop being finite: the first operator and the first sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from sgs.engine.lowering import SessionBuilder, session_options
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.registry import FLOAT

Feeds = Mapping[str, Array]


def first_not_finite(graph: Graph, feeds: Iterable[Feeds]) -> tuple[int, str, Node] | None:
    """(index of the feeds, tensor, the node that makes it) of the first infinity or NaN in the results of any node,
    or None. Runs a float graph node by node, so it is slow; nothing is kept that no node reads any more.
    """
    last = {name: k for k, node in enumerate(graph.nodes) for name in node.inputs if name is not None}
    kernels = []
    for node in graph.nodes:
        reads = [name for name in dict.fromkeys(node.inputs) if name is not None and not graph[name].is_constant]
        builder = SessionBuilder(graph)
        for name in reads:
            builder.feed(name, "native")
        FLOAT[node.op](builder, node)
        session = builder.finish(dict.fromkeys(node.outputs, "native"), session_options(0))
        kernels.append((node, reads, session))
    for index, feed in enumerate(feeds):
        values = dict(feed)
        for k, (node, reads, session) in enumerate(kernels):
            results = session.run([f"out:{name}" for name in node.outputs], {f"in:{n}": values[n] for n in reads})
            for name, result in zip(node.outputs, results, strict=True):
                if not np.isfinite(result).all():
                    return index, name, node
                values[name] = result
            for name in (*reads, *node.outputs):
                if last.get(name, -1) <= k:
                    values.pop(name, None)
    return None
