"""May this graph run on this chip? Every limit is a predicate whose docstring is what the user reads, here and in
docs/OPERATORS.md.

Limits of an operator stand in its file; those of all operators and those of a chip stand here, the latter with
docstrings that are filled with the chip's figures.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence

from sgs.config.chips import Chip
from sgs.errors import OPERATOR_LIST, UserError, raise_all
from sgs.img.check import LARGEST_AXES
from sgs.ir.graph import Graph, Node, Tensor
from sgs.numeric.quantise import QuantParams
from sgs.numeric.types import DType
from sgs.registry import CONSTRAINTS, COST, FIXED, HOST, MOVE, OPERATOR, QUANTISE, TILE, Constraint

STAGE = "compile"
PLAIN = (DType.BOOL, DType.INT32, DType.INT64)  # a network's own integers, which no operator takes for codes
LIMITS_LIST = "docs/OPERATORS.md lists the limits"
CHIP_REMEDY = "choose another chip, or other bits for the layer; docs/OPERATORS.md lists all limits"

Operands = list[Tensor | None]
ChipLimit = Callable[[Chip, Node, Operands, list[Tensor]], bool]


def check_legal(graph: Graph, chip: Chip) -> None:
    """Raise UserError naming every node that the toolchain or the chip cannot run, and why."""
    raise_all(list(_problems(graph, chip)), stage=STAGE)


def _problems(graph: Graph, chip: Chip) -> Iterator[UserError]:
    if not graph.outputs:
        yield UserError("the network has no output", stage=STAGE)
    for name in dict.fromkeys(name for name in graph.outputs if graph.outputs.count(name) > 1):
        yield UserError("is an output more than once", stage=STAGE, node=f"tensor '{name}'", remedy="list it once")
    for tensor in graph.activations():
        if not tensor.elements:
            yield UserError(f"shape {list(tensor.shape)} holds nothing", stage=STAGE, node=f"tensor '{tensor.name}'")
    for node in graph.nodes:
        for reason, remedy in _reasons(graph, node, chip):
            yield UserError(reason, stage=STAGE, node=node.label, remedy=remedy)


def _reasons(graph: Graph, node: Node, chip: Chip) -> Iterator[tuple[str, str | None]]:
    operands, results = graph.operands(node), graph.results(node)
    if node.op not in OPERATOR:
        yield f"operator {node.op} is unknown", OPERATOR_LIST
        return
    if computes_in_float(graph, node):
        yield "computes in floating point", "calibrate the float model and compile its fixed .sim"
        return
    if (
        (node.op not in TILE and node.op not in MOVE)
        or node.op not in COST
        or (node.op not in FIXED and node.op not in HOST)
    ):
        yield f"operator {node.op} has no integer form", OPERATOR_LIST
        return
    for limit in (*LIMITS, *CONSTRAINTS[node.op]):
        if not limit(node, operands, results):
            yield f"breaks a limit: {told_by(limit).rstrip('.')}", LIMITS_LIST
    for chip_limit in CHIP_LIMITS:
        if not chip_limit(chip, node, operands, results):
            yield f"breaks a limit of {chip.name}: {told_by(chip_limit, chip).rstrip('.')}", CHIP_REMEDY


def computes_in_float(graph: Graph, node: Node) -> bool:
    """True for a node that a calibrated network does not hold: it reads or writes real numbers, neither only moving
    them nor converting them from or to codes, or from integers of the network's own."""
    if OPERATOR[node.op].stage == "float":
        return True
    rule = QUANTISE.get(node.op)
    if OPERATOR[node.op].stage == "fixed" or (rule is not None and rule.kind == "move"):
        return False
    written = [] if rule is not None and rule.retypes else graph.results(node)
    return any(tensor is not None and tensor.dtype.is_float for tensor in (*graph.operands(node), *written))


def told_by(rule: Callable[..., object], chip: Chip | None = None) -> str:
    """What a limit or another rule tells the user: the first paragraph of its docstring, with the figures of the chip
    where one is given."""
    text = " ".join((inspect.getdoc(rule) or rule.__name__).split("\n\n")[0].split())
    if chip is None:
        return text
    figures = {name: getattr(chip, name) for name in chip.figures}
    listed = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in figures.items()}
    return text.format_map(listed)


# -- limits of all operators -------------------------------------------------------------------------------------------
def ranks_fit(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Tensors have at most 8 axes, but for changes of shape that move nothing."""
    if node.op in MOVE and MOVE[node.op].alias:
        return True
    return all(tensor is None or len(tensor.shape) <= LARGEST_AXES for tensor in (*operands, *results))


def activations_have_one_scale(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Activations have one scale and one zero point, not one per channel."""
    tensors = [tensor for tensor in (*operands, *results) if tensor is not None and not tensor.is_constant]
    return all(tensor.quant is None or tensor.quant.per_tensor for tensor in tensors)


def codes_are_quantised(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """Activations that an operator computes with, rather than moves, have a scale and a zero point, or are plain
    integers of 32 bits or truth values."""
    rule = QUANTISE.get(node.op)
    if rule is None or rule.kind not in ("mac", "real", "select") or rule.retypes:
        return True
    tensors = [tensor for tensor in (*operands, *results) if tensor is not None and not tensor.is_constant]
    return all(tensor.quant is not None or tensor.dtype in PLAIN for tensor in tensors)


def moves_keep_codes(node: Node, operands: Sequence[Tensor | None], results: Sequence[Tensor]) -> bool:
    """An operator that only moves or selects values keeps their type, scale and zero point."""
    rule = QUANTISE.get(node.op)
    if rule is None:
        return True
    moved = () if rule.moved is None else rule.moved(node)
    shared = [index for index in range(len(results)) if index not in rule.apart]
    pairs = [*rule.pairs, *itertools.product(moved, shared)]
    tied = [(x, results[index]) for operand, index in pairs if (x := operands[operand]) is not None]
    return all(x.dtype is y.dtype and _same_codes(x.quant, y.quant) for x, y in tied)


def _same_codes(one: QuantParams | None, other: QuantParams | None) -> bool:
    return one is other or (one is not None and one.same_codes(other))


LIMITS: tuple[Constraint, ...] = (ranks_fit, activations_have_one_scale, codes_are_quantised, moves_keep_codes)


# -- limits of a chip --------------------------------------------------------------------------------------------------
def _window(node: Node, operands: Operands) -> tuple[int, ...]:
    """Extents of a node's window, () for a node without one."""
    if not OPERATOR[node.op].window:
        return ()
    if "kernel" in node.attrs:
        return tuple(node.attrs["kernel"])
    weight = operands[1] if len(operands) > 1 else None
    return () if weight is None else weight.shape[1:3]


def kernel_fits(chip: Chip, node: Node, operands: Operands, results: list[Tensor]) -> bool:
    """A window is at most {max_kernel} high and wide."""
    return all(extent <= chip.max_kernel for extent in _window(node, operands))


def stride_fits(chip: Chip, node: Node, operands: Operands, results: list[Tensor]) -> bool:
    """Strides are at most {max_stride}."""
    return not OPERATOR[node.op].window or all(stride <= chip.max_stride for stride in node.attrs["strides"])


def dilation_fits(chip: Chip, node: Node, operands: Operands, results: list[Tensor]) -> bool:
    """Dilations are at most {max_dilation}."""
    return all(dilation <= chip.max_dilation for dilation in node.attrs.get("dilations", ()))


def formats_fit(chip: Chip, node: Node, operands: Operands, results: list[Tensor]) -> bool:
    """Sums of products take these number formats: {number_formats}."""
    rule = QUANTISE.get(node.op)
    if rule is None or rule.kind != "mac" or len(operands) <= rule.weight:
        return True
    used = {tensor.dtype for tensor in (operands[0], operands[rule.weight]) if tensor is not None}
    return all(dtype.name.lower() in chip.number_formats for dtype in used - {DType.INT8})


CHIP_LIMITS: tuple[ChipLimit, ...] = (kernel_fits, stride_fits, dilation_fits, formats_fit)
