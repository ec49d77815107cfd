"""A .sim file → graph. Nothing in the file is believed: what does not fit is a UserError that names the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Any

from flatbuffers import flexbuffers

from sgs.errors import UserError
from sgs.ir.graph import Graph, Node
from sgs.ir.verify import violations
from sgs.numeric.types import DType
from sgs.registry import SIM
from sgs.sim import generated as schema
from sgs.sim.container import MALFORMED, Container, FileOperator, FileTensor, read_container, values_of
from sgs.sim.fields import unpack_options
from sgs.sim.spelling import SpellingError, as_attr, unspell
from sgs.sim.write import RESERVED

STAGES = ("debug", "float", "fixed")
STAGE = "read .sim"  # of errors
MESSAGE_LENGTH = 1000  # what a damaged file says of itself may be long
_MADE_BY = {
    "debug": "ConvertTool.py writes it as Debug_<name>",
    "float": "ConvertTool.py writes it",
    "fixed": "run calibrator.py on the float .sim",
}


@dataclass(frozen=True)
class SimFile:
    """What a .sim holds. `stage`: "debug", "float" or "fixed"."""

    graph: Graph
    stage: str
    path: str


def read_sim(path: str | PathLike[str]) -> SimFile:
    """Read a .sim file.

    Constants are read-only views of the mapped file. Raises UserError for anything but a well-formed file of ours.
    """
    return _Reader(read_container(path, stage=STAGE, kind=".sim")).read()


def expect_stage(sim: SimFile, wanted: str | Iterable[str], tool: str) -> Graph:
    """The graph of a file of the wanted stage (or one of several). Raises UserError naming `tool` and the way out."""
    stages = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if sim.stage in stages:
        return sim.graph
    kinds = " or ".join(f"{_article(stage)} {stage}" for stage in stages)
    has = f"{_article(sim.stage)} {sim.stage}"
    raise UserError(f"is {has} .sim; {tool} needs {kinds} .sim", stage=STAGE, file=sim.path, remedy=_MADE_BY[stages[0]])


def fault(path: str, reason: str, node: str | None = None, remedy: str | None = None) -> UserError:
    """The error for what is wrong with a .sim file."""
    return UserError(reason, stage=STAGE, file=path, node=node, remedy=remedy)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


class _Reader:
    """The records of one file on their way to a graph."""

    def __init__(self, file: Container) -> None:
        self.file = file
        self.path = file.path
        self.graph = Graph(file.name)
        self.names: list[str] = []  # of the file's tensors, by index

    def read(self) -> SimFile:
        metadata = self._metadata()
        stage = metadata.get("stage")
        if stage is None:
            remedy = "ConvertTool.py tflite makes a float .sim of it"
            raise fault(self.path, "this is a .tflite model, not a .sim", remedy=remedy)
        if stage not in STAGES:
            raise fault(self.path, f"its stage {stage!r} is not known", remedy="it may be the work of a newer version")
        if self.file.others:
            raise fault(self.path, f"it holds {self.file.others + 1} subgraphs; networks of one are supported")
        graph = self.graph
        for index, tensor in enumerate(self.file.tensors):
            self._add_tensor(tensor, tensor.name or f"tensor{index}")
        graph.inputs, graph.outputs = ([self.names[i] for i in ends] for ends in (self.file.inputs, self.file.outputs))
        graph.nodes = [self._node(position, record) for position, record in enumerate(self.file.operators)]
        self._well_formed("in the file")
        self._spell_out()
        self._well_formed("when read")
        self._node_names(metadata.get("nodes", {}))
        graph.metadata = {key: value for key, value in metadata.items() if key not in RESERVED}
        return SimFile(graph, stage, self.path)

    def _well_formed(self, when: str) -> None:
        found = violations(self.graph)
        found.extend(f"constant '{name}' is an input" for name in self.graph.inputs if self.graph[name].is_constant)
        if found:
            reason = f"the graph is not well formed {when}: " + "; ".join(found[:5])
            raise fault(self.path, reason[:MESSAGE_LENGTH])

    def _spell_out(self) -> None:
        try:
            unspell(self.graph)
        except SpellingError as error:
            raise fault(self.path, str(error)[:MESSAGE_LENGTH], node=error.node or None) from error

    def _add_tensor(self, tensor: FileTensor, stem: str) -> None:
        if tensor.special:
            raise fault(self.path, f"it is {tensor.special}, which is not supported", node=stem)
        if tensor.kind not in DType.__members__:
            raise fault(self.path, f"its element type {tensor.kind} is not supported", node=stem)
        try:
            data = None if tensor.raw is None else values_of(tensor)
        except ValueError as error:
            raise fault(self.path, str(error), node=stem) from error
        made = self.graph.add_tensor(stem, tensor.shape, DType[tensor.kind], data=data, quant=tensor.quant)
        self.names.append(made.name)

    # -- operators -----------------------------------------------------------------------------------------------------
    def _node(self, position: int, record: FileOperator) -> Node:
        op = _known_as(record)
        if not record.outputs:
            raise fault(self.path, f"operator {position} ({op}) has no result")
        operands: list[str | None] = [None if i < 0 else self.names[i] for i in record.inputs]
        node = Node(op, operands, [self.names[i] for i in record.outputs])
        try:
            node.attrs = _attrs(op, record)
        except MALFORMED as error:
            reason = f"its options cannot be read: {error or type(error).__name__}"
            raise fault(self.path, reason, node=node.label) from error
        return node

    # -- metadata ------------------------------------------------------------------------------------------------------
    def _metadata(self) -> dict[str, Any]:
        """The buffers whose names begin with `sgs.`, by the rest of the name."""
        found: dict[str, Any] = {}
        for name, raw in self.file.metadata.items():
            if not name.startswith("sgs."):
                continue
            try:
                found[name.removeprefix("sgs.")] = json.loads(raw.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise fault(self.path, "it is not JSON", node=f"metadata {name}") from error
        return found

    def _node_names(self, names: Any) -> None:
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise fault(self.path, "it does not map results to names", node="metadata sgs.nodes")
        for node in self.graph.nodes:
            node.name = names.get(node.outputs[0], "")


def _known_as(record: FileOperator) -> str:
    """Our name of a file operator; for one that we lack, what to call it in a message."""
    if record.op == "CUSTOM":
        ours = (op for op in SIM if SIM[op].custom and (SIM[op].code or op) == record.custom)
        return next(ours, f"custom operator {record.custom}")
    row = SIM.get(record.op)
    return f"builtin operator {record.op}" if row is not None and row.custom else record.op


def _attrs(op: str, record: FileOperator) -> dict[str, Any]:
    """Options by schema names, or the attrs of a custom operator. Raises what malformed options raise."""
    row = SIM.get(op)
    if row is None:
        return {}
    if row.custom:
        attrs = {} if record.packed is None else flexbuffers.Loads(record.packed)
        if not isinstance(attrs, dict):
            raise ValueError("they are not a map")
        return dict(as_attr(attrs))
    if not row.options:
        return {}
    if record.table not in ("", row.options):
        raise ValueError(f"table {record.table} instead of {row.options}")
    return record.options if record.table else unpack_options(getattr(schema, f"{row.options}T")())
