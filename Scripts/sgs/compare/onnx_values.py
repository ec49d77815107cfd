"""Every tensor of a model of ONNX's operators, as onnxruntime computes it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, helper

from sgs.compare.stage import STAGE, StageTensor
from sgs.data.shards import processors
from sgs.errors import UserError
from sgs.frontends.model_file import first_line
from sgs.frontends.onnx_external import with_values, without_external
from sgs.frontends.onnx_model import Port, Shape, SourceModel, fix_shapes
from sgs.numeric.quantise import Array

GROUP_BYTES = 1 << 28  # of values that one run gives; a network with more is run several times


class OnnxValues:
    """Runs a model whose inputs have the ports' shapes. Raises UserError for one that onnxruntime does not take.

    Its graph is not optimised, so that every value is there. Results of Constant nodes are not among them, and what is
    known to be no tensor, such as a sequence.
    """

    runner = "onnxruntime"
    rounded: Collection[str] = ()

    def __init__(self, model: SourceModel, ports: Sequence[Port]) -> None:
        self._path, self._ports = model.path, ports
        whole = with_values(model.proto, model.external)
        if whole is None:
            reason = "its weights are more than the 2 GiB that onnxruntime takes in one message"
            raise UserError(reason, stage=STAGE, file=model.path, remedy="dump the Debug .sim that ConvertTool writes")
        self._proto = fix_shapes(whole, ports)
        inferred = onnx.shape_inference.infer_shapes(fix_shapes(without_external(model.proto), ports)).graph
        types = {value.name: value.type for value in (*inferred.value_info, *inferred.output)}
        self._types = {name: kind.tensor_type for name, kind in types.items()}
        others = {name for name, kind in types.items() if kind.WhichOneof("value") not in (None, "tensor_type")}
        self._made = {
            name: node.op_type
            for node in self._proto.graph.node
            if node.op_type != "Constant"
            for name in node.output
            if name and name not in others
        }
        self._sessions: dict[tuple[str, ...], onnxruntime.InferenceSession] = {}

    def described(self) -> Iterator[StageTensor]:
        for port in self._ports:
            yield StageTensor(port.name, port.shape, port.dtype, "")
        for name, operator in self._made.items():
            yield StageTensor(name, self._shape(name), self._dtype(name), operator)

    def _shape(self, name: str) -> Shape | None:
        """None where it depends on values."""
        kind = self._types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
        return None if -1 in dims else tuple(dims)

    def _dtype(self, name: str) -> str:
        kind = self._types.get(name)
        if kind is None or not kind.elem_type:
            return "unknown"
        return str(helper.tensor_dtype_to_np_dtype(kind.elem_type).name)

    def tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]:
        yield from ((port.name, feeds[port.name]) for port in self._ports if port.name in wanted)
        groups = self._groups([name for name in self._made if name in wanted])
        for group in groups:
            session = self._session(group, keep=len(groups) == 1)
            try:
                values = session.run(list(group), dict(feeds))
            except Exception as error:  # onnxruntime's own kinds, which have nothing else in common
                reason = f"onnxruntime cannot run it: {first_line(error)}"
                raise UserError(reason, stage=STAGE, file=self._path) from error
            for name, value in zip(group, values, strict=True):
                if not isinstance(value, np.ndarray):
                    raise UserError("is no tensor", stage=STAGE, file=self._path, node=name, remedy="leave it out")
                yield name, value

    def _groups(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The names in order, as many at a time as `GROUP_BYTES` hold."""
        groups: list[list[str]] = []
        room = 0
        for name in names:
            size = math.prod(self._shape(name) or (1,)) * 4
            if not groups or size > room:
                groups.append([])
                room = GROUP_BYTES
            groups[-1].append(name)
            room -= size
        return [tuple(group) for group in groups]

    def _session(self, results: tuple[str, ...], *, keep: bool) -> onnxruntime.InferenceSession:
        """A session that gives these values alone; kept for other samples where it is the only one."""
        if results in self._sessions:
            return self._sessions[results]
        model = ModelProto()
        model.CopyFrom(self._proto)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in results)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = processors()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # as above
            reason = f"onnxruntime cannot run it: {first_line(error)}"
            remedy = "dump the Debug .sim that ConvertTool writes"
            raise UserError(reason, stage=STAGE, file=self._path, remedy=remedy) from error
        if keep:
            self._sessions = {results: session}
        return session
