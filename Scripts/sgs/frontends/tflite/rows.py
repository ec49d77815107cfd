"""What the operators of a TFLite file mean: their rows, or, for those that are ours, what `SIM` says of them; and why
others have no meaning here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from onnx import NodeProto

from sgs.ir.graph import Tensor
from sgs.ops._tflite import fused
from sgs.registry import IMPORT_TFLITE, OPERATOR, SIM, ImportContext
from sgs.sim import generated as schema
from sgs.sim.fields import unpack_options
from sgs.sim.spelling import meaning

DOMAIN = "tflite"  # of nodes that are operators of a TFLite file
CODES = "quantised"  # attribute of nodes that compute in integer codes: their type

Row = Callable[[ImportContext], Sequence[Tensor]]
_CUT = "cut the network in front of it with --outputs, or behind it with --inputs"
_DEQUANTISE = "convert the float network that it was made from, or have real numbers made of it with --dequantize"
_DETECTORS = ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "custom TFLite_Detection_PostProcess")
_REASONS: dict[tuple[str, ...], str] = {
    ("RFFT2D", "REAL", "IMAG", "COMPLEX_ABS"): "computes with complex numbers",
    ("IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE"): "runs another network of the file",
    ("STABLEHLO_COMPOSITE",): "is defined by another network of the file",
    ("HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "HASHTABLE_LOOKUP"): "looks words up",
    ("LSH_PROJECTION", "SKIP_GRAM", "EMBEDDING_LOOKUP_SPARSE"): "works on text",
    ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"): "keeps a state from run to run",
    ("LSTM", "RNN", "SVDF"): "keeps a state from run to run",
    ("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR"): (
        "gives random values, which differ from run to run"
    ),
    ("WHERE", "UNIQUE"): "gives results whose shape depends on the values",
    _DETECTORS: "chooses boxes, which is done outside of the network",
    ("BITCAST",): "reads the bits of numbers",
}
_FREEZE = "convert with TFLiteConverter.from_keras_model or from_saved_model, which make constants of the weights"
_KERAS = {
    "WHILE": "export LSTM, GRU and RNN layers with unroll=True",
    "VAR_HANDLE": _FREEZE,
    "READ_VARIABLE": _FREEZE,
}
_BY_OPERATOR = {op: reason for ops, reason in _REASONS.items() for op in ops}


def tflite_row(node: NodeProto) -> Row | None:
    """What emits a node of a TFLite file; None for one without a meaning here."""
    return IMPORT_TFLITE.get(node.op_type) or (_spelled if is_spelled(node.op_type) else None)


def quantised(nodes: Iterable[NodeProto]) -> tuple[str, str] | None:
    """(reason, remedy) where nodes of a TFLite file compute in codes, which was not asked to be made real numbers."""
    coded = [(node, attribute) for node in nodes for attribute in node.attribute if attribute.name == CODES]
    if not coded:
        return None
    node, kind = coded[0][0], coded[0][1].s.decode()
    told = (
        f"the network is quantised: {len(coded)} operators compute in {kind} codes, {node.op_type} '{node.name}' first"
    )
    return told, _DEQUANTISE


def is_spelled(op: str) -> bool:
    """Whether a builtin is an operator of ours for real numbers and means what `SIM` says."""
    row = SIM.get(op)
    return row is not None and not row.custom and OPERATOR[op].stage != "fixed"


def refusal(node: NodeProto) -> tuple[str, str]:
    """(reason, remedy) for a node without a row."""
    op = str(node.op_type)
    why = _BY_OPERATOR.get(op) or ("runs a kernel of TensorFlow's own" if op.startswith("custom Flex") else "")
    kind = f"custom operator {op.removeprefix('custom ')}" if op.startswith("custom ") else f"operator {op}"
    remedy = f"cut the network in front of it with --outputs {','.join(node.input[:2])}" if op in _DETECTORS else _CUT
    if op in _KERAS:
        remedy = f"Keras: {_KERAS[op]}; otherwise {_CUT}"
    return f"{kind} is not supported" + (f": it {why}" if why else ""), remedy


def _spelled(ctx: ImportContext) -> Sequence[Tensor]:
    """An operator of ours, as .sim files spell it; TFLite knows more fused activations."""
    row = SIM[ctx.op]
    options = _options(row.options, ctx.attrs) if row.options else {}
    activation = options.get("fused_activation_function", "NONE")
    if row.activation:
        options["fused_activation_function"] = "NONE"
    operands, attrs = meaning(ctx.op, options, ctx.inputs, (), label=f"{ctx.op} '{ctx.name}'")
    results = ctx.emit_many(ctx.op, operands, **attrs)
    return results if activation == "NONE" else [fused(ctx, results[0], activation)]


def _options(table: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a table in its own types, what is not given as the schema has it."""
    default = unpack_options(getattr(schema, f"{table}T")())
    taken = {name: given[name] for name in default if given.get(name) is not None}
    return default | {name: _as(default[name], value) for name, value in taken.items()}


def _as(default: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return bool(value) if isinstance(default, bool) else value
