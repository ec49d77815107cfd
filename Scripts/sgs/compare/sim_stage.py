"""Debug, float and fixed .sim files as stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from sgs.compare.graph_values import GraphValues
from sgs.compare.match import scales_of
from sgs.compare.stage import Stage, StageTensor
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.engine.single import NodeKernel
from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.simulation import Simulator


class SimStage(Stage):
    """The stage of an opened .sim."""

    def __init__(self, simulator: Simulator) -> None:
        assert simulator.graph is not None
        self.path = simulator.path
        self.kind = simulator.stage.capitalize()
        self.graph: Graph = simulator.graph
        self.inputs, self.outputs = self.graph.inputs, self.graph.outputs
        self._simulator = simulator
        self._values = GraphValues(self.graph, real=simulator.kind == "Float", threads=simulator.threads)

    @cached_property
    def scales(self) -> Mapping[str, Array]:
        return scales_of(self.graph.metadata, self.names())

    @property
    def calibration(self) -> Mapping[str, Any]:
        return dict(self.graph.metadata.get("calibration", {}))

    def _described(self) -> Iterator[StageTensor]:
        return self._values.described()

    def feeds(self, preprocessors: Sequence[Preprocessor], sample: Sample) -> dict[str, Array]:
        return self._simulator.feeds(preprocessors, sample)

    def _tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]:
        checked = {port.name: self._simulator.checked(port, feeds[port.name]) for port in self._simulator.inputs}
        return self._values.tensors(checked, wanted)

    def kernel(self, node: Node) -> NodeKernel:
        """What runs a node of the graph alone."""
        return self._values.kernel(node)
