"""Every tensor of a TFLite model, as LiteRT computes it, where that is installed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from sgs.compare.stage import STAGE, StageTensor
from sgs.errors import UserError
from sgs.frontends.model_file import first_line
from sgs.frontends.onnx_model import Port, SourceModel
from sgs.frontends.tflite.model import tensor_numbers
from sgs.numeric.quantise import Array, QuantParams

PACKAGE = "ai_edge_litert"
_EXACT = ("DEQUANTIZE", "GATHER", "EMBEDDING_LOOKUP")


def litert_there() -> bool:
    """Whether LiteRT is installed."""
    return find_spec(PACKAGE) is not None


class LiteRtValues:
    """Runs a .tflite file, whose tensors are called as the importer calls them. Raises UserError for one that LiteRT
    does not take."""

    runner = "LiteRT"

    def __init__(self, model: SourceModel, ports: Sequence[Port], named: Sequence[str]) -> None:
        self._path, self._ports = model.path, ports
        numbers = tensor_numbers(model.path, named)
        interpreter = import_module(f"{PACKAGE}.interpreter")
        kernels = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # which keep inner values to themselves
        try:
            self._interpreter: Any = interpreter.Interpreter(
                model_path=str(model.path),
                num_threads=1,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=kernels,
            )
            for port in ports:
                self._interpreter.resize_tensor_input(numbers[port.name], list(port.shape or ()))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self._refused(error) from error
        self._made = {
            name: (numbers[name], node.op_type) for node in model.proto.graph.node for name in node.output if name
        }
        self._numbers = {port.name: numbers[port.name] for port in ports}
        self._details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        self.rounded: Collection[str] = frozenset(self._rounded(model, numbers))

    def _rounded(self, model: SourceModel, numbers: Mapping[str, int]) -> Iterator[str]:
        """Real results of operators with 8-bit weights: LiteRT multiplies in integers there, and rounds the activations
        for it."""
        kinds = {name: np.dtype(self._details[number]["dtype"]) for name, number in numbers.items()}
        bytes_ = {one.name for one in model.proto.graph.initializer if kinds[one.name].itemsize == 1}
        for node in model.proto.graph.node:
            if node.op_type not in _EXACT and not bytes_.isdisjoint(node.input):
                yield from (name for name in node.output if name and kinds[name].kind == "f")

    def _refused(self, error: Exception) -> UserError:
        remedy = "dump the Debug .sim that ConvertTool writes"
        return UserError(f"LiteRT cannot run it: {first_line(error)}", stage=STAGE, file=self._path, remedy=remedy)

    def described(self) -> Iterator[StageTensor]:
        made = {name: (number, "") for name, number in self._numbers.items()} | self._made
        for name, (number, operator) in made.items():
            detail = self._details[number]
            shape = tuple(map(int, detail["shape"]))
            yield StageTensor(name, shape, np.dtype(detail["dtype"]).name, operator, _quant(detail))

    def tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]:
        yield from ((name, feeds[name]) for name in self._numbers if name in wanted)
        try:
            for name, number in self._numbers.items():
                self._interpreter.set_tensor(number, feeds[name])
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise self._refused(error) from error
        for name, (number, _) in self._made.items():
            if name in wanted:
                yield name, self._interpreter.get_tensor(number)


def _quant(detail: Mapping[str, Any]) -> QuantParams | None:
    """What the codes of a tensor stand for; None of real numbers."""
    told = detail["quantization_parameters"]
    if not len(told["scales"]) or np.dtype(detail["dtype"]).kind == "f":
        return None
    return QuantParams(told["scales"], told["zero_points"], int(told["quantized_dimension"]))
