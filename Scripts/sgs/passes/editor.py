"""Edit a graph while its producers and readers stay indexed, so that a pass over many nodes takes linear time."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from sgs.ir.graph import Graph, Node, Tensor


class Editor:
    """`with Editor(graph) as edit:` — removed nodes and unused tensors leave the graph at the end of the block.

    `count` is the number of rewrites so far: each pass adds to it.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.readers = graph.readers()
        self.count = 0
        self._removed: set[int] = set()
        self._inserted: dict[int, list[Node]] = {}  # id of a node → nodes to stand in front of it
        self._behind: dict[int, list[Node]] = {}  # and behind it

    def __enter__(self) -> Editor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        if self._inserted or self._behind:
            before, behind = self._inserted, self._behind
            self.graph.nodes = [
                made
                for node in self.graph.nodes
                for made in (*before.get(id(node), ()), node, *behind.get(id(node), ()))
            ]
        if self._removed:
            self.graph.nodes = [node for node in self.graph.nodes if id(node) not in self._removed]
        self.graph.prune()

    # -- questions -------------------------------------------------------------------------------------------
    def alive(self, node: Node) -> bool:
        return id(node) not in self._removed

    def only_reader(self, name: str) -> Node | None:
        """The one node that reads a tensor, once, when nothing else (a graph output, a second reader) needs it."""
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and name not in self.graph.outputs else None

    def sole_producer(self, name: str | None) -> Node | None:
        """The producer of a tensor that has exactly one reader; None for inputs, constants and shared tensors."""
        if name is None or name not in self.producers or self.only_reader(name) is None:
            return None
        return self.producers[name]

    def constant(self, name: str | None) -> Tensor | None:
        """The tensor when it is a constant."""
        tensor = None if name is None else self.graph[name]
        return tensor if tensor is not None and tensor.is_constant else None

    # -- edits -----------------------------------------------------------------------------------------------
    def set_input(self, node: Node, index: int, name: str) -> None:
        """Make a node read another tensor."""
        old = node.inputs[index]
        node.inputs[index] = name
        self.readers.setdefault(name, []).append(node)
        if old is not None:
            self._forget(old, node)

    def set_inputs(self, node: Node, names: Sequence[str | None]) -> None:
        """Make a node read these tensors and no others."""
        for name in node.inputs:
            if name is not None:
                self._forget(name, node)
        node.inputs = list(names)
        for name in names:
            if name is not None:
                self.readers.setdefault(name, []).append(node)

    def add_constant(self, stem: str, data: object) -> str:
        """A new constant, under a fresh name."""
        tensor = self.graph.add_constant(stem, data)  # type: ignore[arg-type]
        self.readers[tensor.name] = []
        return tensor.name

    def add_tensor(self, stem: str, like: Tensor) -> str:
        """A new tensor of the shape and type of another, under a fresh name."""
        tensor = self.graph.add_tensor(stem, like.shape, like.dtype)
        self.readers[tensor.name] = []
        return tensor.name

    def insert_before(self, place: Node, node: Node) -> None:
        """Add a node, whose results are already tensors of the graph, in front of another."""
        self._inserted.setdefault(id(place), []).append(node)
        self._index(node)

    def insert_behind(self, place: Node, nodes: Sequence[Node]) -> None:
        """Add nodes, whose results are already tensors of the graph, behind another."""
        self._behind.setdefault(id(place), []).extend(nodes)
        for node in nodes:
            self._index(node)

    def _index(self, node: Node) -> None:
        self.producers.update((name, node) for name in node.outputs)
        for name in node.outputs:
            self.readers.setdefault(name, [])
        for operand in node.inputs:
            if operand is not None:
                self.readers.setdefault(operand, []).append(node)

    def bypass(self, node: Node, source: str, output: int = 0) -> bool:
        """Let readers of a node's result read `source` instead; the node goes away once all its results are bypassed.

        Where nothing else knows `source`, the result of a node, by its name, it takes the name of the result: the one
        by which the source network's next operator reads it, unless a pass made it up from the name of `source`.
        A graph output keeps its name in any case: False, and nothing changed, where `source` cannot take it, because
        it is itself an input, an output or a constant.
        """
        name = node.outputs[output]
        fixed = source not in self.producers or source in self.graph.outputs or len(node.outputs) > 1
        wanted = name in self.graph.outputs
        if fixed and wanted:
            return False
        unknown = all(reader is node for reader in self.readers[source])
        renamed = wanted or (not fixed and unknown and not name.startswith(f"{source}/"))
        moved = self.readers[name]
        for reader in moved:
            reader.inputs = [source if operand == name else operand for operand in reader.inputs]
        self.readers[source].extend(moved)
        self.readers[name] = []
        if renamed:
            self.remove(node)
            self._take_name(source, name)
        elif not any(self.readers[result] or result in self.graph.outputs for result in node.outputs):
            self.remove(node)
        return True

    def remove(self, node: Node) -> None:
        """Take a node out of the graph."""
        self._removed.add(id(node))
        for operand in node.inputs:
            if operand is not None:
                self._forget(operand, node)

    def _forget(self, name: str, node: Node) -> None:
        present = self.readers[name]
        index = next((i for i, reader in enumerate(present) if reader is node), None)
        if index is not None:
            del present[index]

    def _take_name(self, old: str, new: str) -> None:
        """Give tensor `old` the name `new` of a tensor that nothing refers to any more."""
        tensor = self.graph.tensors.pop(old)
        tensor.name = new
        self.graph.tensors[new] = tensor
        producer = self.producers.pop(old)
        producer.outputs = [new if name == old else name for name in producer.outputs]
        self.producers[new] = producer
        self.readers[new] = self.readers.pop(old)
        for reader in self.readers[new]:
            reader.inputs = [new if name == old else name for name in reader.inputs]
