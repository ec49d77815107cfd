"""A float graph as one onnxruntime session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from sgs.data.shards import processors
from sgs.engine.lowering import SessionBuilder, session_options, sparing
from sgs.ir.graph import Graph
from sgs.numeric.quantise import Array
from sgs.registry import FLOAT


class FloatEngine:
    """Runs a float graph. `extra` names inner tensors to return beside the graph's outputs."""

    def __init__(self, graph: Graph, *, threads: int = 0, extra: Iterable[str] = ()) -> None:
        self.graph = graph
        self.results = list(dict.fromkeys([*graph.outputs, *extra]))
        builder = SessionBuilder(graph)
        for name in graph.inputs:
            builder.feed(name, "native")
        for node in graph.nodes:
            FLOAT[node.op](builder, node)
        options = sparing(session_options(threads), graph)
        self._threads = threads or processors()
        self._session = builder.finish(dict.fromkeys(self.results, "native"), options)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on arrays keyed by input name, in the graph's layout; returns arrays keyed by tensor name."""
        arrays = {f"in:{name}": np.asarray(feeds[name], order="C") for name in self.graph.inputs}
        values = self._session.run([f"out:{name}" for name in self.results], arrays)
        return dict(zip(self.results, values, strict=True))

    def lanes(self) -> int:
        """How many runs at a time are worth while: with several threads two, so that one may be prepared meanwhile."""
        return min(2, self._threads)
