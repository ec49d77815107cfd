"""From a prepared float graph and a plan to the fixed graph (docs/NUMERICS.md §7). No decision is taken here.

Storage: tensors that moving operators tie together form a group with one type and one set of parameters. A group is
UINT8 when all that read it are 8-bit sums of products, else INT16; an 8-bit reader of an INT16 group gets a QUANTIZE
with the range of the very tensor it reads. Where one scale would leave a joined tensor too few codes, the group is held
as real numbers: what is joined has codes of its own, and whoever reads the result gets codes again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from sgs.errors import UserError
from sgs.ir import Graph, Node, Tensor, verify
from sgs.numeric.quantise import (
    Array,
    QuantParams,
    activation_params,
    quantise,
    quantise_weights,
    symmetric_params,
)
from sgs.numeric.table import build_table
from sgs.numeric.types import DType
from sgs.ops._mac import INT16_REACH, two_part_limit, two_parts
from sgs.ops._move import moved_by
from sgs.quant.plan import MacChoice, QuantPlan
from sgs.quant.ports import NO_PORTS, Ports
from sgs.quant.prepare import FUNCTION, kind_of, range_sources
from sgs.registry import FADES, FIXED_EXPAND, OPERATOR, QUANTISE

WEIGHT_TYPE = {4: DType.INT4, 8: DType.INT8, 16: DType.INT16}  # of a sum of products, by its precision
_FAR = 1e38  # what infinities that mark a place become: all codes of it stand for binary32 numbers
_SUM_LIMIT = 2.0**30  # widening keeps the products of a sum on UINT8 operands below this
_BIAS_LIMIT = {DType.UINT8: 2.0**30, DType.INT16: 2.0**51}  # and the bias below this, by type of the operand
_EXACT = {DType.UINT8: 2.0**31, DType.INT16: 2.0**53}  # sums in int32 and in binary64 are exact below this
_REACH = {DType.UINT8: 255, DType.INT16: INT16_REACH}  # largest magnitude of a centred code
APART = 85  # times: what is joined with a tensor so much wider would keep fewer than 8 of 16 bits, with headroom
BYTE_SPAN = (0.0, 255.0)  # of a real input that is fed as bytes: each stands for itself
COARSE = 1.25  # an 8-bit reader of a group shares its UINT8 codes when the group's range is at most this much wider


@dataclass
class _Group:
    """Tensors with one type and parameters; no parameters where they are real numbers."""

    members: list[str] = field(default_factory=list)
    wants_wide: bool = False
    narrow: list[str] = field(default_factory=list)  # members that 8-bit sums of products read
    dtype: DType = DType.INT16
    params: QuantParams | None = None


def _sum_floor(weight: Array, axis: int, unit_bias: Array) -> Array:
    """Least weight scale [O] at which 16-bit sums of few taps stay exact in two binary32 parts (NUMERICS §2); 0 for
    many taps. `unit_bias` [O] is the bias as a weight of an operand at its largest."""
    total = _products(weight, axis)
    limit = two_part_limit(weight.size // weight.shape[axis])
    return np.zeros(total.shape) if limit is None else (total + unit_bias) / limit


def _products(weight: Array, axis: int) -> Array:
    """Σ|w| of every output channel, float64 [O]."""
    return np.asarray(np.abs(np.moveaxis(weight, axis, 0).astype(np.float64)).reshape(weight.shape[axis], -1).sum(1))


@dataclass(frozen=True)
class _Integers:
    """Weights and bias [O] of a sum of products as codes, `unit` [O] the real number that a bias of 1 stands for."""

    params: QuantParams
    weight: Array
    bias: Array  # whole numbers in float64
    unit: Array

    @staticmethod
    def of(weight: Array, bias: Array, bound: Array, operand: QuantParams, kind: DType, axis: int) -> _Integers:
        """NUMERICS eq. 3, 5 and the bias of §2; `bound` [O] is what the largest weight code stands for."""
        params = symmetric_params(bound, kind, axis)
        unit = operand.scale.astype(np.float64) * params.scale.astype(np.float64)
        with np.errstate(over="ignore"):  # an infinite bias does not fit
            rounded = np.rint(bias / unit).astype(np.float32)  # 24 bits are enough, and keep sums exact in binary32
        return _Integers(params, quantise_weights(weight, params, kind), rounded.astype(np.float64), unit)

    @property
    def bias_params(self) -> QuantParams:
        return QuantParams(self.unit.astype(np.float32), np.zeros(self.unit.shape, np.int32), 0)

    def bias_codes(self, operand: DType) -> Array:
        """The bias in the type that goes with the operand's."""
        return self.bias.astype(np.int64 if operand is DType.INT16 else np.int32)

    def fit(self, operand: DType) -> bool:
        """Whether the sums are exact, and those of few 16-bit taps in two binary32 parts (NUMERICS §2)."""
        axis, bias = self.params.axis, np.abs(self.bias)
        worst = _products(self.weight, axis) * _REACH[operand] + bias
        if worst.max(initial=0) >= _EXACT[operand]:
            return False
        few = operand is DType.INT16 and two_part_limit(self.weight.size // self.weight.shape[axis]) is not None
        return not few or two_parts(np.moveaxis(self.weight, axis, 0), self.bias) is not None


def _integers(prepared: Graph, node: Node, choice: MacChoice, x: Tensor) -> _Integers:
    """The codes of a prepared sum of products at the plan's bounds, wider ones where sums of those codes would not be
    exact, for the quantised operand x. A channel of zeros has no bound of its own: it gets the finest that its bias
    allows."""
    rule = QUANTISE[node.op]
    weight = prepared[node.inputs[rule.weight] or ""]
    data = weight.data if choice.weight is None else choice.weight
    bias = bias_values(prepared, node, choice)
    assert data is not None and x.quant is not None
    kind, bound, axis = WEIGHT_TYPE[choice.bits], choice.weight_bound, rule.channel_axis
    steps, scale = kind.qmax, float(x.quant.scale[0])
    floor = np.abs(bias) * steps / (scale * _BIAS_LIMIT[x.dtype])
    if x.dtype is DType.UINT8:
        floor = np.maximum(floor, _products(data, axis) * 255 / _SUM_LIMIT * steps)
    else:
        floor = np.maximum(floor, _sum_floor(data, axis, np.abs(bias) / (scale * INT16_REACH)) * steps)
    made = _Integers.of(data, bias, np.where(bound > 0, bound, floor), x.quant, kind, axis)
    if made.fit(x.dtype):
        return made
    return _Integers.of(data, bias, np.maximum(bound, floor), x.quant, kind, axis)


def bias_values(prepared: Graph, node: Node, choice: MacChoice) -> Array:
    """Real bias [O] of a prepared sum of products as a choice has it, zeros where there is none."""
    rule = QUANTISE[node.op]
    name = node.inputs[rule.bias] if len(node.inputs) > rule.bias else None
    data = prepared[name].data if name is not None else None
    channels = prepared[node.inputs[rule.weight] or ""].shape[rule.channel_axis]
    own = np.zeros(channels) if data is None else data.astype(np.float64)
    bias = own if choice.bias is None else choice.bias
    return bias if choice.bias_shift is None else bias + choice.bias_shift


def mend_mac(fixed: Graph, prepared: Graph, source: Node, node: Node, choice: MacChoice) -> None:
    """Give a sum of products of a fixed graph, `source` in the prepared one, the weights and bias of another choice of
    the same precision."""
    rule, x = QUANTISE[node.op], fixed[node.inputs[0] or ""]
    made = _integers(prepared, source, choice, x)
    weight, bias = fixed[node.inputs[rule.weight] or ""], fixed[node.inputs[rule.bias] or ""]
    weight.data, weight.quant = made.weight, made.params
    bias.data, bias.quant = made.bias_codes(x.dtype), made.bias_params


def _width(span: tuple[float, float]) -> float:
    """Width of a range that is widened to contain 0."""
    return max(span[1], 0.0) - min(span[0], 0.0)


def mac_type(bits: int) -> DType:
    """Activation type of a sum of products."""
    return DType.INT16 if bits == 16 else DType.UINT8


def moved_operands(node: Node) -> list[str]:
    """Operands of a moving operator that share parameters with its results."""
    return [name for i in moved_by(node) if (name := node.inputs[i]) is not None]


def moved_results(node: Node) -> list[str]:
    """Results of a moving operator that share parameters with its operands."""
    return [name for index, name in enumerate(node.outputs) if index not in QUANTISE[node.op].apart]


def build_groups(graph: Graph) -> dict[str, _Group]:
    """Tensor → its group, by following moving operators."""
    group: dict[str, _Group] = {t.name: _Group([t.name]) for t in graph.activations()}

    def join(a: str, b: str) -> None:
        left, right = group[a], group[b]
        if left is not right:
            left.members += right.members
            for name in right.members:
                group[name] = left

    for node in graph.nodes:
        if kind_of(node) == "move":
            names = moved_operands(node)
            for name in names:
                group.setdefault(name, _Group([name]))
            for name in [*names[1:], *moved_results(node)]:
                join(names[0], name)
    return group


def _fading(graph: Graph) -> dict[str, float]:
    """Tensor → how far below the others its values no longer count, to whoever reads it through moving operators."""
    found: dict[str, float] = {}
    for node in reversed(graph.nodes):
        if node.op in FADES and node.inputs[0] is not None:
            found[node.inputs[0]] = max(found.get(node.inputs[0], 0.0), FADES[node.op](node))
        elif node.op not in FADES and kind_of(node) == "move":
            distance = max((found.get(name, 0.0) for name in node.outputs), default=0.0)
            found.update((name, max(found.get(name, 0.0), distance)) for name in moved_operands(node))
    return found


class FixedBuilder:
    """Builds the fixed graph in one walk. Used through `build_fixed`."""

    def __init__(self, prepared: Graph, plan: QuantPlan, ports: Ports) -> None:
        self.source = prepared
        self.plan = plan
        self.ports = ports
        self.graph = prepared.copy()
        self.graph.nodes = []
        self.groups = build_groups(prepared)
        self._casts: dict[tuple[str, DType], str] = {}
        moving = [node for node in prepared.nodes if kind_of(node) == "move"]
        self._movers = {name: node for node in moving for name in moved_results(node)}
        self._computed_from = {
            n for node in prepared.nodes for i, n in enumerate(node.inputs) if i not in moved_by(node)
        }
        self._range_sources = range_sources(prepared)
        self._fading = _fading(prepared)

    # -- storage -------------------------------------------------------------------------------------------------------
    def _range(self, name: str, dtype: DType) -> tuple[float, float]:
        """What codes of a tensor must cover: all of it in INT16, the clipped range (where the plan has one) in
        UINT8.
        """
        below = 0.0  # room for what marks a place
        while name in self._range_sources:
            below = max(below, self._fading.get(name, 0.0))
            name = self._range_sources[name]
        tensor = self.source[name]
        if tensor.data is not None:
            return float(tensor.data.min(initial=0)) - below, float(tensor.data.max(initial=0))
        if name in self.ports.fed_bytes:
            return BYTE_SPAN
        chosen = self.plan.range_of(name, narrow=dtype is DType.UINT8)
        return chosen.low - below, chosen.high

    def separate(self) -> None:
        """Take what moving operators join out of groups that are held as real numbers."""
        for group in {id(g): g for g in self.groups.values()}.values():
            if not self._is_apart(group):
                continue
            for name in [name for name in group.members if name not in self._movers]:
                group.members.remove(name)
                self.groups[name] = _Group([name], wants_wide=True)
            group.dtype = DType.FLOAT32

    def _is_apart(self, group: _Group) -> bool:
        """Whether one scale would leave the smallest of the joined tensors too few codes, and whoever reads the group
        can have them: a reader of that part alone, or an output of real numbers."""
        moved = self._movers.keys() & group.members
        if not self.source[group.members[0]].dtype.is_float or self.ports.codes & moved:
            return False
        if any(OPERATOR[self._movers[name].op].window for name in moved):  # it compares codes
            return False
        reach = {name: max(map(abs, self._range(name, DType.INT16))) for name in group.members}
        joined = [bound for name, bound in reach.items() if name not in moved and bound > 0]
        if not moved or not joined or max(joined) < APART * min(joined):
            return False
        parts = {name for name in moved if max(joined) >= APART * reach[name] > 0}
        return not moved.isdisjoint(self.source.outputs) or not parts.isdisjoint(self._computed_from)

    def decide_storage(self) -> None:
        """Type and parameters of every group."""
        for node in self.source.nodes:
            mac, moved = kind_of(node) == "mac", moved_by(node)
            for index, name in enumerate(node.inputs):
                if name is None or index in moved or name not in self.groups or self.source[name].is_constant:
                    continue
                if mac and index == 0 and mac_type(self.plan.macs[node.outputs[0]].bits) is DType.UINT8:
                    self.groups[name].narrow.append(name)
                else:
                    self.groups[name].wants_wide = True
        for name in [*self.source.outputs, *self.ports.codes]:
            if name in self.ports.byte_results:
                self.groups[name].narrow.append(name)
            else:
                self.groups[name].wants_wide = True
        for group in {id(g): g for g in self.groups.values()}.values():
            self._settle(group)

    def _settle(self, group: _Group) -> None:
        if group.dtype is DType.FLOAT32 or not self.source[group.members[0]].dtype.is_float:
            return  # real numbers, or integers of the network's own, such as indices
        fine = min((_width(self._range(name, DType.UINT8)) for name in group.narrow), default=0.0)
        coarse = _width(self._union(group, DType.UINT8)) > COARSE * fine
        group.dtype = DType.INT16 if group.wants_wide or coarse or not group.narrow else DType.UINT8
        low, high = self._union(group, group.dtype)
        group.params = activation_params(low, high, group.dtype)
        for name in group.members:
            tensor = self.graph.tensors[name]
            if tensor.data is not None:
                shared = self.graph.add_constant(
                    f"{name}/codes", quantise(tensor.data, group.params, group.dtype), quant=group.params
                )
                self._casts[(name, group.dtype)] = shared.name
            else:
                tensor.dtype, tensor.quant = group.dtype, group.params

    def own_params(self, name: str, dtype: DType) -> QuantParams:
        """Parameters of a tensor's own range, whatever its group has."""
        return activation_params(*self._range(name, dtype), dtype)

    def _union(self, group: _Group, dtype: DType) -> tuple[float, float]:
        spans = [self._range(name, dtype) for name in group.members]
        return min(low for low, _ in spans), max(high for _, high in spans)

    def reading(self, name: str, dtype: DType) -> str:
        """The tensor in the type a reader wants: itself, or through a (shared) QUANTIZE with its own range."""
        tensor = self.graph[name]
        if tensor.dtype is dtype:
            return name
        key = (name, dtype)
        if key not in self._casts:
            params = self.own_params(name, dtype)
            cast = self.graph.add_tensor(f"{name}/{dtype.name.lower()}", tensor.shape, dtype, quant=params)
            self.graph.nodes.append(Node("QUANTIZE", [name], [cast.name], {}, name))
            self._casts[key] = cast.name
        return self._casts[key]

    def _held_as(self, name: str, result: Tensor) -> str:
        """An operand of a moving operator, dequantised where the result is real numbers."""
        tensor, key = self.graph[name], (name, DType.FLOAT32)
        if tensor.quant is None or result.quant is not None:
            return name
        if key not in self._casts:
            real = self.graph.add_tensor(f"{name}/real", tensor.shape, DType.FLOAT32)
            self.graph.nodes.append(Node("DEQUANTIZE", [name], [real.name], {}, name))
            self._casts[key] = real.name
        return self._casts[key]

    # -- nodes ---------------------------------------------------------------------------------------------------------
    def add(self, node: Node) -> None:
        """Append the fixed form of one prepared node. Raises UserError, naming it, where integers cannot stand for
        it.
        """
        make = {
            "mac": self._mac,
            "move": self._move,
            "unary": self._unary,
            "real": self._real,
            "select": self._select,
        }
        try:
            make[kind_of(node)](node)
        except ValueError as error:
            raise UserError(
                f"cannot be quantised: {error}",
                stage="calibrate",
                node=node.label,
                remedy="mend the network there, or cut it before this node",
            ) from error

    def _mac(self, node: Node) -> None:
        rule, choice = QUANTISE[node.op], self.plan.macs[node.outputs[0]]
        x = self.graph[self.reading(node.inputs[0] or "", mac_type(choice.bits))]
        weight, bias = node.inputs[rule.weight] or "", f"{node.outputs[0]}/bias"
        made = _integers(self.source, node, choice, x)
        codes = self.graph.add_constant(f"{weight}/q", made.weight, quant=made.params, dtype=WEIGHT_TYPE[choice.bits])
        codes_bias = self.graph.add_constant(bias, made.bias_codes(x.dtype), quant=made.bias_params)
        inputs = list(node.inputs)
        inputs += [None] * (rule.bias + 1 - len(inputs))
        inputs[0], inputs[rule.weight], inputs[rule.bias] = x.name, codes.name, codes_bias.name
        self.graph.nodes.append(Node(node.op, inputs, list(node.outputs), dict(node.attrs), node.name))

    def _move(self, node: Node) -> None:
        moved, shared = moved_by(node), moved_results(node)
        result = self.graph[shared[0]] if shared else None
        inputs = list(node.inputs)
        for index, name in enumerate(node.inputs):
            if name is None:
                continue
            tensor = self.source[name]
            if index in moved and result is not None:
                known = self._casts.get((name, result.dtype), name)
                inputs[index] = known if tensor.is_constant else self._held_as(name, result)
            elif index not in moved and tensor.dtype.is_float and not tensor.is_constant:
                inputs[index] = self.reading(name, DType.INT16)
        self.graph.nodes.append(Node(node.op, inputs, list(node.outputs), dict(node.attrs), node.name))

    def _unary(self, node: Node) -> None:
        assert node.op == FUNCTION
        x, y = self.graph[self.reading(node.inputs[0] or "", DType.INT16)], self.graph[node.outputs[0]]
        assert x.quant is not None and y.quant is not None
        expression = node.attrs["expression"]
        table = build_table(expression, x.quant, x.dtype, y.quant, y.dtype, channels=expression.channels)
        name = self.graph.add_constant(f"{y.name}/table", table).name
        attrs = {"function": expression.describe()}
        self.graph.nodes.append(Node("TABLE", [x.name, name], [y.name], attrs, node.name))

    def _real(self, node: Node) -> None:
        inputs: list[str | None] = []
        marked = node.outputs[0] in self._range_sources
        for name in node.inputs:
            if name is None:
                inputs.append(None)
            elif (constant := self.source[name]).data is not None and constant.dtype.is_float:
                inputs.append(self._real_constant(constant, marked))
            else:
                coded = name in self.groups and self.source[name].dtype.is_float
                inputs.append(self.reading(name, DType.INT16) if coded else name)
        made = Node(node.op, inputs, list(node.outputs), dict(node.attrs), node.name)
        self.graph.nodes.append(made)
        if node.op in FIXED_EXPAND:
            FIXED_EXPAND[node.op](self.graph, made)

    def _select(self, node: Node) -> None:
        """Values that are chosen keep the codes of what they are chosen from."""
        self._real(node)
        for operand, index in QUANTISE[node.op].pairs:
            source, result = self.graph[self.graph.nodes[-1].inputs[operand] or ""], self.graph[node.outputs[index]]
            result.dtype, result.quant = source.dtype, source.quant

    def _real_constant(self, constant: Tensor, marked: bool) -> str:
        """Codes of a constant; infinities among them are finite where they only mark a place."""
        key = (constant.name, DType.INT16)
        if key not in self._casts:
            assert constant.data is not None
            data = np.clip(constant.data, -_FAR, _FAR) if marked else constant.data
            params = symmetric_params(np.abs(data).max(initial=0.0), DType.INT16)
            codes = quantise(data, params, DType.INT16)
            self._casts[key] = self.graph.add_constant(f"{constant.name}/codes", codes, quant=params).name
        return self._casts[key]


def build_fixed(prepared: Graph, plan: QuantPlan, ports: Ports = NO_PORTS) -> Graph:
    """The fixed graph: integer operators, inputs and outputs (INT16 or UINT8 codes under the source's names; plain
    integers where the network has them).

    `quant.boundary.attach` puts the network's front end and back end on it. `prepared` comes from `prepare`, `plan`
    must hold a range for every activation and a choice for every sum of products. Outputs that are not among the codes
    of `ports` may be real numbers, and those of bytes may still be INT16.
    """
    builder = FixedBuilder(prepared, plan, ports)
    builder.separate()
    builder.decide_storage()
    for node in prepared.nodes:
        builder.add(node)
    builder.graph.prune()
    verify(builder.graph, "quantisation")
    return builder.graph


def byte_params(prepared: Graph, plan: QuantPlan, ports: Ports) -> dict[str, QuantParams]:
    """Output that leaves as UINT8 → the parameters of its own range."""
    builder = FixedBuilder(prepared, plan, ports)
    return {name: builder.own_params(name, DType.UINT8) for name in sorted(ports.byte_results)}


def mac_nodes(prepared: Graph) -> Iterable[Node]:
    """The sums of products of a prepared graph, in order; others may have no integer form."""
    return [node for node in prepared.nodes if node.op in QUANTISE and kind_of(node) == "mac"]
