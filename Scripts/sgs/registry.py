"""The operator tables.

One table is one interpretation of the operator set; one row says what one operator means under it. All rows of an
operator live in its file under `sgs/ops`, which registers them at import; `sgs.ops` imports every file it finds. A test
asks that every operator has a row in every table that its stage needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from sgs.errors import OPERATOR_LIST, UnsupportedOperator

if TYPE_CHECKING:
    from sgs.ir.graph import Graph, Node, Tensor
    from sgs.numeric.quantise import Array
    from sgs.numeric.types import DType

Row = TypeVar("Row")
Shape = tuple[int, ...]


class RuleTable(Generic[Row]):
    """Operator name → row. `TABLE[op]` raises UnsupportedOperator for an operator without one."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._rows: dict[str, Row] = {}

    def __getitem__(self, op: str) -> Row:
        try:
            return self._rows[op]
        except KeyError:
            raise UnsupportedOperator(f"operator {op} has no {self.title}", remedy=OPERATOR_LIST) from None

    def __contains__(self, op: object) -> bool:
        return op in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._rows))

    def get(self, op: str) -> Row | None:
        return self._rows.get(op)

    def add(self, op: str, row: Row) -> Row:
        """Register a row; a second one for the same operator is a defect."""
        if op in self._rows:
            raise ValueError(f"operator {op} already has a {self.title}")
        self._rows[op] = row
        return row

    def row(self, *ops: str) -> Callable[[Row], Row]:
        """Decorator form of `add`, for one or several operators."""

        def register(row: Row) -> Row:
            for op in ops:
                self.add(op, row)
            return row

        return register


# -- what an operator is
# -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OperatorInfo:
    """`stage` says where the operator may stand: in float graphs, in fixed graphs, or in both.

    `window`: it moves a window over pictures, of attr `kernel` or of the rows and columns of its weight, operand 1.
    `no_integers`: why a float operator has no fixed form and no `QUANTISE` row, for the calibrator's message.
    """

    stage: Literal["float", "fixed", "both"]
    summary: str
    window: bool = False
    no_integers: str = ""


OPERATOR: RuleTable[OperatorInfo] = RuleTable("description")

# -- shapes: (node, operands) → [(shape, dtype)] per result
# -------------------------------------------------------------
INFER: RuleTable[Callable[[Node, Sequence[Tensor | None]], list[tuple[Shape, DType]]]] = RuleTable("shape rule")


# -- the .sim file
# ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SimWindow:
    """How the attr `pads` of a sliding window is spelled, where the file knows SAME and VALID only.

    Other pads become a PAD in front, filled with real 0 or with the lowest value; `fill` None: no PAD means the same,
    and the row's `encode` refuses them. `kernel(node, operands)` is (height, width).
    """

    kernel: Callable[[Node, Sequence[Tensor | None]], Sequence[int]]
    fill: Literal["zero", "lowest"] | None = "zero"


@dataclass(frozen=True)
class SimConstant:
    """A constant operand that only the file has. `make(node, operands, results)` builds it; `read(constant)` gives the
    attrs that it stands for."""

    name: str
    make: Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], Tensor]
    read: Callable[[Tensor], dict[str, Any]]


@dataclass(frozen=True)
class SimRow:
    """How an operator is spelled in a TFLite container.

    `options` is the name of the options table ("Conv2DOptions") or "" for none; `fields` maps its camelCase-free field
    names (as in schema/sim.fbs) to our attrs where they are one-to-one; `activation` True when the table has
    fused_activation_function (our attr "activation"). `constant_inputs` maps an operand position to the attr that is
    written there as an int32 constant; `file_inputs` likewise for constants that are no int32 copy of an attr.
    `encode`/`decode` handle whatever is left: encode(node, operands, results) →
    extra option fields; decode(options as dict, operands, results) → extra attrs. `custom` True: custom operator,
    attrs go to a flexbuffer map; `code` is its name in the file where that is not ours. `order` permutes operands: file
    position k, constants of the file not counted, holds our operand order[k]. `window`: the table has a field padding,
    spelled from the attr `pads`. `version` is the first of the operator that runtimes know.
    """

    options: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    activation: bool = False
    constant_inputs: dict[int, str] = field(default_factory=dict)
    file_inputs: dict[int, SimConstant] = field(default_factory=dict)
    encode: Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], dict[str, Any]] | None = None
    decode: Callable[[dict[str, Any], Sequence[Tensor | None], Sequence[Tensor]], dict[str, Any]] | None = None
    order: tuple[int, ...] = ()
    window: SimWindow | None = None
    custom: bool = False
    code: str = ""
    version: int = 1


SIM: RuleTable[SimRow] = RuleTable("spelling in .sim")


# -- layout
# -------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Moved:
    """A node after a Transpose moved through it.

    `attrs` replace the node's; `constants` maps operand positions to new constant data; `perms` gives, per result, the
    permutation that turns the new result into the old one.
    """

    attrs: dict[str, Any]
    perms: tuple[tuple[int, ...], ...]
    constants: dict[int, Array] = field(default_factory=dict)


# (graph, node, perm) → Moved, or None where the Transpose cannot pass. All non-constant operands are transpose(x,
# perm); the row says what the node becomes when it reads the x themselves.
LAYOUT: RuleTable[Callable[[Graph, Node, tuple[int, ...]], Moved | None]] = RuleTable("layout trait")


# -- operators that are short for others
# -------------------------------------------------------------------------------------------------
class Emit(Protocol):
    """Appends an operator and gives its only result, whose name ends with `stem`."""

    def __call__(self, stem: str, op: str, /, *operands: Tensor | Array, **attrs: Any) -> Tensor: ...


# (emit, node, operands) → results: a float operator made of others, which calibration takes in its place
EXPAND: RuleTable[Callable[[Emit, Node, Sequence[Tensor]], Sequence[Tensor]]] = RuleTable("expansion")


# -- engine: lowering to onnxruntime
# ---------------------------------------------------------------------------------------------
Layout = Literal["native", "first"]  # as in the graph | channels first (rank 4 only: NHWC held as NCHW)


class Lowering(Protocol):
    """What a lowering row sees. Values are names in the ONNX graph being built; conversions are inserted and cached."""

    graph: Graph
    exact_dot_products: bool  # whether UINT8 × INT8 kernels of this processor sum in 32 bits

    def op(self, op_type: str, inputs: Sequence[str], /, outputs: int = 1, domain: str = "", **attrs: Any) -> Any:
        """Append an ONNX node; returns the name of its result (list of names when outputs > 1)."""

    def cast(self, value: str, dtype: DType) -> str:
        """The value in another element type."""

    def const(self, data: Array, *, shared: bool = True) -> str:
        """An initializer; equal small ones are one, unless `shared` is False."""

    def real(self, tensor: str, layout: Layout = "native") -> str:
        """The tensor as binary32 real numbers (dequantised by eq. 1 when it is quantised)."""

    def codes(self, tensor: str, layout: Layout = "native") -> str:
        """The tensor in its own element type."""

    def centred(self, tensor: str, layout: Layout = "native") -> str:
        """Codes minus zero point, as integer-valued binary32."""

    def put(self, tensor: str, value: str, layout: Layout = "native") -> None:
        """Publish a result in the tensor's own element type."""

    def put_real(self, tensor: str, value: str, layout: Layout = "native") -> None:
        """Publish a result given as real binary32: quantised by eq. 4 when the tensor is quantised."""

    def put_scaled(
        self,
        tensor: str,
        value: str,
        multiplier: Array,
        layout: Layout = "native",
        bounds: tuple[int, int] | None = None,
    ) -> None:
        """Publish clamp(rint(value · M) + zp): eq. 7 (float32 multiplier) or eq. 8 (float64), [C] or scalar."""

    def add_apart(self, a: str, b: str, layout: Layout) -> str:
        """a + b, one binary32 step not merged into what made them; rank 4 in `layout`, b may be [1, C, 1, 1]."""

    def prefer(self, tensors: Sequence[str | None]) -> Layout:
        """The layout in which most elements of the rank-4 activations among these tensors exist so far; "native" in a
        tie. Tensors of lower rank and those that exist in both layouts have no say.
        """


Lower = Callable[["Lowering", "Node"], None]
FLOAT: RuleTable[Lower] = RuleTable("float lowering")
FIXED: RuleTable[Lower] = RuleTable("integer lowering")


@dataclass(frozen=True)
class HostRow:
    """A fixed operator that runs between onnxruntime sessions (on large tensors only, where it has a lowering as well).

    `make(graph, node)` returns a function (inputs, outputs) → None that fills the preallocated output arrays. Inputs
    are all operands in order, constant ones as well. All have the graph's shapes and are contiguous. `any_layout`: the
    operator is elementwise, so activations may also be views [N, H, W, C] of contiguous arrays [N, C, H, W]. `centred`:
    its function fills float32 outputs with codes minus zero point, for readers that want those and nothing else.
    """

    make: Callable[[Graph, Node], Callable[[list[Array], list[Array]], None]]
    any_layout: bool = False
    centred: bool = False


HOST: RuleTable[HostRow] = RuleTable("host kernel")

# (node, operand tensors, result tensors, operand values) → result values; integers, slow and obvious
REFERENCE: RuleTable[
    Callable[[Node, Sequence[Tensor | None], Sequence[Tensor], Sequence[Array | None]], list[Array]]
] = RuleTable("integer reference")


# -- quantisation
# ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class QuantRule:
    """How an operator is made integer.

    kind:
      "mac"    operand 0 is UINT8 or INT16 by the plan, operand `weight` symmetric per channel, operand `bias` exact
      integer.
      "move"   moves or selects values: results share type and parameters with the operands in `moved`, but for those in
               `apart`, which are plain integers, such as indices.
      "real"   reads INT16, computes in binary32, writes INT16 or UINT8.
      "select" chooses values among INT16 ones, and which jumps with the least change of them: how near its results are
               to those of another network says nothing. Each of `pairs`, (operand, result), shares type and parameters;
               other results are plain integers.
      "unary"  elementwise function of operand 0: becomes a TABLE of its `REAL` row.
    `channel_axis` is the axis of the weight that holds output channels. `retypes`: operands and results may also be
    plain integers of any width.
    """

    kind: Literal["mac", "move", "real", "select", "unary"]
    retypes: bool = False
    weight: int = 1
    bias: int = 2
    channel_axis: int = 0
    moved: Callable[[Node], Sequence[int]] | None = None
    apart: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()


QUANTISE: RuleTable[QuantRule] = RuleTable("quantisation rule")

# (real operands of a "select" operator, None where not at hand) → for each operand (unit, signal), arrays like it: what
# an error in an element is measured in, and what counts as the element's own size in that unit; None: as it stands
YARDSTICK: RuleTable[Callable[[Sequence[Array | None]], list[tuple[Array, Array] | None]]] = RuleTable("yardstick")


@dataclass(frozen=True)
class MatrixForm:
    """A sum of products as a product of matrices, in G groups that share nothing: y[p, g, :] = rows[p, g, :] @ w[g].

    `positions` is P of one sample. `rows(x, chosen)` takes an operand (its padding being 0) and positions to
    [len(chosen), G, D], `mean(x)` to the mean of all rows, float64 [G, D]; `matrix(weight)` takes weights to
    [G, D, O/G] and `weights(matrix)` back. Output channel o is column o mod O/G of group o // (O/G).
    """

    positions: int
    rows: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    matrix: Callable[[Array], Array]
    weights: Callable[[Array], Array]


# (node, operand 0, weight, result) → its matrix form
MATRIX: RuleTable[Callable[[Node, Tensor, Tensor, Tensor], MatrixForm]] = RuleTable("matrix form")


# (node, operand values) → value in real numbers, float64: elementwise operators that may become part of one table
REAL: RuleTable[Callable[[Node, Sequence[Array]], Array]] = RuleTable("real function")

# (graph, node) → None: a quantised node rewritten in place into fixed micro-operators, once its operands and results
# have their parameters
FIXED_EXPAND: RuleTable[Callable[[Graph, Node], None]] = RuleTable("fixed expansion")

# (low, high) of the real result of operators whose range is known without measuring
RANGE: RuleTable[tuple[float, float]] = RuleTable("result range")

Span = tuple[int, int]  # least and largest
# (node, operands, spans of operands that are plain integers, where known) → what the plain integers among the results
# may be, whatever the network is fed; None where that is unknown
SPAN: RuleTable[Callable[[Node, Sequence[Tensor | None], Sequence[Span | None]], Span | None]] = RuleTable("span")

# (node, operands) → the operand whose range the result's parameters come from, because what the node adds to it only
# has to lose against every value and may saturate; None where the result has a range of its own
RANGE_FROM: RuleTable[Callable[[Node, Sequence[Tensor | None]], int | None]] = RuleTable("range source")

# (node) → how far below the largest value of its row, along the last axis, a value of operand 0 no longer counts; 0
# where all count. What marks masked places has to lie as far below the others in the codes, too
FADES: RuleTable[Callable[[Node], float]] = RuleTable("distance at which values fade")


# -- compiler
# --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MacShape:
    """Sums of products as a MAC array takes them: `groups` that share nothing; in each of them `inputs` channels meet
    the weights of `outputs` channels in each of `steps`, a step being one tap at one position."""

    groups: int
    inputs: int
    outputs: int
    steps: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of it all."""
        return self.groups * self.inputs * self.outputs * self.steps


@dataclass(frozen=True)
class Cost:
    """Work of one node: multiply-accumulates and vector-unit operations (elements × steps). A sum of products has
    `array` as well, which says how its multiply-accumulates lie on the array."""

    macs: int = 0
    vector_ops: int = 0
    array: MacShape | None = None

    @classmethod
    def of_products(cls, groups: int, inputs: int, outputs: int, steps: int) -> Cost:
        """Work of a sum of products; see `MacShape`."""
        shape = MacShape(groups, inputs, outputs, steps)
        return cls(macs=shape.macs, array=shape)


# The docstring of a row is what docs/OPERATORS.md says of it.
COST: RuleTable[Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], Cost]] = RuleTable("cost rule")
Box = tuple[tuple[int, int], ...]  # (begin, end) along every axis


def whole_box(shape: Shape) -> Box:
    """All of a tensor."""
    return tuple((0, extent) for extent in shape)


@dataclass(frozen=True)
class Part:
    """A box of a node's result as a computation of its own: the box of every operand that it takes (None: the operand
    is absent), and the attrs of the node that makes it from them."""

    operands: tuple[Box | None, ...]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class TileRow:
    """How an operator is computed piece by piece, with the same codes as at once.

    `axes(node, operands, results)` gives the axes along which result 0 may be cut, each with the number that every
    cut's position is a multiple of; `part(node, operands, results, box)` what a box of it takes, the box being whole
    along all other axes. Further results are cut at the same places. The docstring of `axes` is what docs/OPERATORS.md
    says of it. `elementwise`: an operand of the result's shape is needed at the result's own box, element by element,
    so that the result may lie on it.
    """

    axes: Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], dict[int, int]]
    part: Callable[[Node, Sequence[Tensor | None], Sequence[Tensor], Box], Part]
    elementwise: bool = False


TILE: RuleTable[TileRow] = RuleTable("tile rule")


@dataclass(frozen=True)
class Copy:
    """Elements of an operand that go to a result as they are: `extents` of them, at offset and strides (elements) in
    the operand and in the result, both held contiguously."""

    operand: int
    result: int
    extents: Shape
    source: tuple[int, Shape]  # offset, strides
    target: tuple[int, Shape]


@dataclass(frozen=True)
class MoveRow:
    """An operator that the DMA engine does, by copies that fill its results. `alias`: the result is operand 0's bytes
    under another shape, so that where they may share them nothing is done."""

    copies: Callable[[Node, Sequence[Tensor | None], Sequence[Tensor]], Sequence[Copy]]
    alias: bool = False


MOVE: RuleTable[MoveRow] = RuleTable("move rule")

# Predicates (node, operands, results) → bool, True when the limit is kept. The docstring is the user's message.
Constraint = Callable[["Node", "Sequence[Tensor | None]", "Sequence[Tensor]"], bool]
CONSTRAINTS: RuleTable[tuple[Constraint, ...]] = RuleTable("constraints")

# -- examples: () → [graphs that use the operator, distinct extents], float stage (fixed-only operators: fixed graphs)
# -----
EXAMPLES: RuleTable[Callable[[], list[Graph]]] = RuleTable("examples")


# -- ONNX import
# --------------------------------------------------------------------------------------------------------------
class ImportContext(Protocol):
    """What an ONNX import row sees. Operands arrive in the source's layout."""

    op: str  # ONNX operator type
    name: str  # ONNX node name
    inputs: Sequence[Tensor | None]
    attrs: dict[str, Any]  # Python values; tensors as numpy arrays
    opset: int
    output_count: int

    def constant(self, index: int, what: str) -> Array | None:
        """Value of a constant operand, None when absent; refuses a node whose operand is not constant."""

    def needs_constant(self, index: int, what: str) -> Exception:
        """The error to raise for an operand that is computed and would have to be constant."""

    def source_type(self, index: int) -> str:
        """numpy's name of the element type that an operand has in the source, "" where a node computes it."""

    def reader_of(self, index: int) -> Literal["", "output", "node"]:
        """Whether another node reads a result, or else it is an output of the network, or nothing wants it."""

    def shape_before(self, tensor: Tensor) -> Shape | None:
        """Shape of what was reshaped to a tensor; None where no Reshape makes it."""

    def refuse(self, reason: str, remedy: str = "") -> Exception:
        """The error to raise for a form that has no meaning here; names node, operator and file."""

    def emit(self, op: str, *operands: Any, **attrs: Any) -> Tensor:
        """Append an operator of ours (stems and names follow the source node) and return its only result."""

    def emit_many(self, op: str, operands: Sequence[Any], **attrs: Any) -> list[Tensor]:
        """Append an operator of ours with several results."""

    def call(self, op: str, *operands: Tensor | None, **attrs: Any) -> list[Tensor]:
        """Results of another ONNX operator's row, on operands in the source's layout, as part of this node."""

    def nhwc(self, tensor: Tensor) -> Tensor:
        """Transpose an NCHW tensor of rank 4 to NHWC."""

    def nchw(self, tensor: Tensor) -> Tensor:
        """Transpose an NHWC tensor of rank 4 to NCHW."""


# ONNX operator type → (context) → result tensors in the source's layout
IMPORT_ONNX: RuleTable[Callable[[ImportContext], Sequence[Tensor]]] = RuleTable("ONNX import")


@dataclass(frozen=True)
class OnnxCase:
    """One ONNX node as test example: `inputs` name → shape, `constants` name → array, in operand order by `order`
    (default: inputs, then constants; "" is an absent operand). Inputs are float32 but for those in `types`, name →
    numpy's name of a type."""

    op: str
    inputs: dict[str, Shape]
    constants: dict[str, Array] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    outputs: int = 1
    opset: int = 17
    low: float = -1.0
    high: float = 1.0
    types: dict[str, str] = field(default_factory=dict)


ONNX_EXAMPLES: RuleTable[list[OnnxCase]] = RuleTable("ONNX examples")


# -- TFLite import -----------------------------------------------------------------------------------------------------
# TFLite builtin, or "custom <name>" → (context) → result tensors. Operands are the file's, in its order and layout;
# attributes are the options by their schema names. Builtins that are operators of ours, spelled in the file as `SIM`
# says, need no row.
IMPORT_TFLITE: RuleTable[Callable[[ImportContext], Sequence[Tensor]]] = RuleTable("TFLite import")


@dataclass(frozen=True)
class TfliteCase:
    """One TFLite operator as test example: `inputs` name → shape, `constants` name → array, in operand order by `order`
    (default: inputs, then constants; "" is an absent operand). Inputs are float32 between `low` and `high` but for
    those in `types`, name → numpy's name of a type. `table` is the name of the options table and `options` what is
    in it, by schema names; `packed` are the options of a custom operator. `results`: element types of the results.
    `variables` are the constants that the file declares as variables instead.

    `judge`: what LiteRT runs instead, where it has no such operator, a function of the operands."""

    op: str
    inputs: dict[str, Shape]
    constants: dict[str, Array] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    table: str = ""
    order: tuple[str, ...] = ()
    results: tuple[str, ...] = ("float32",)
    types: dict[str, str] = field(default_factory=dict)
    low: float = -1.0
    high: float = 1.0
    packed: bytes | None = None
    variables: tuple[str, ...] = ()
    judge: Callable[..., Sequence[Array]] | None = None


TFLITE_EXAMPLES: RuleTable[list[TfliteCase]] = RuleTable("TFLite examples")
