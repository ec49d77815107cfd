"""Channel equalisation: channels of one activation brought to like ranges, so that all of them use its codes.

A tensor of one scale wastes the codes of a channel whose range is a fraction of the widest. Where sums of products make
a tensor and read it, channel c can be multiplied by s_c in the weights that make it and divided in those that read it
(Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.1; with the ranges
seen on pictures instead of those of the weights, as in SmoothQuant, Xiao et al. 2023). Weights are scaled per output
channel anyway, so that a depthwise reader loses nothing; a dense one has its columns spread, and the exponent between
"not at all" and "altogether" is the one with the least expected error. A function in between becomes a table of its own
for every channel. Where channels are joined ahead of the sums of products that read them, those of each operand that a
sum of products makes for nobody else can be scaled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sgs.ir import Graph, Node
from sgs.numeric.quantise import Array
from sgs.quant.edit import moved_operands
from sgs.quant.prepare import EQUALISE, FUNCTION, kind_of
from sgs.quant.statistics import Statistics, equalised_name, with_scaled
from sgs.registry import MATRIX, QUANTISE, MatrixForm

_EXPONENTS = tuple((own, column) for own in (0.25, 0.5, 0.75, 1.0) for column in (0.0, 0.25, 0.5))
_LARGEST = 4096.0  # a channel that needs more than this is as good as dead
_WORTH = 0.9  # of the expected error that may be left
_WORTH_TABLES = 0.1  # where a table per channel has to be stored
HEADROOM = 1.25  # other pictures have larger values in some channel
_SILENT = 1e-6  # energy of a result over the largest below which nobody hears it
_PEAK = 4.0  # largest value of a channel over its root mean square, as a rule
Scales = Mapping[str, Array]


@dataclass(frozen=True)
class _Reader:
    """A sum of products as [G, taps, C/G, O/G]."""

    form: MatrixForm
    weight: Array
    groups: int
    channels: int

    @staticmethod
    def of(graph: Graph, node: Node) -> _Reader | None:
        """None where a row of the sum is not made of whole pixels of the operand."""
        x, weight = graph[node.inputs[0] or ""], graph[node.inputs[QUANTISE[node.op].weight] or ""]
        form = MATRIX[node.op](node, x, weight, graph[node.outputs[0]])
        assert weight.data is not None
        groups, width, _ = form.matrix(weight.data).shape
        return _Reader(form, weight.data, groups, x.shape[-1]) if groups * width % x.shape[-1] == 0 else None

    @property
    def matrix(self) -> Array:
        matrix = self.form.matrix(self.weight.astype(np.float64))
        return matrix.reshape(self.groups, -1, self.channels // self.groups, matrix.shape[2])

    def divided(self, scale: Array) -> Array:
        """The weights for an operand whose channels are `scale` times as large, float32."""
        columns = self.matrix / scale.reshape(self.groups, 1, -1, 1)
        return self.form.weights(columns.reshape(self.groups, -1, columns.shape[3])).astype(np.float32)

    def error(self, scale: Array, peak: Array) -> float:
        """Expected error energy of the results, each over its own energy: uniform noise of UINT8 steps in the operand
        (or its own energy, where that is less) and of INT8 steps in the weights, for channels of magnitude `peak`
        before they are scaled."""
        matrix = self.matrix
        columns = matrix / scale.reshape(self.groups, 1, -1, 1)
        power, scaled_power = (((size / _PEAK) ** 2).reshape(self.groups, 1, -1, 1) for size in (peak, peak * scale))
        noise = (columns**2 * np.minimum((peak.max() / 255) ** 2 / 12, scaled_power)).sum((1, 2))
        weight_step = np.abs(columns).max((1, 2)) / 127
        noise += weight_step**2 / 12 * scaled_power.sum((1, 2)) * columns.shape[1]
        energy = (matrix**2 * power).sum((1, 2))
        return float((noise / np.maximum(energy, max(energy.max(), 1e-30) * _SILENT)).sum())


def channel_scales(prepared: Graph, statistics: Statistics, still: Collection[str] = ()) -> dict[str, Array]:
    """What to multiply the channels of which tensors by, float64 [C], from the extrema of the tensors; those that are
    to be left `still` are not, nor what would be scaled with them."""
    found: dict[str, Array] = {}
    makers = prepared.producers()
    for name, parts, sums in _scalable(prepared):
        if not {name, *(tensor for part in parts for tensor in (part.name, part.before))}.isdisjoint(still):
            continue
        tables = any(part.before not in (None, part.name) for part in parts)
        free = np.concatenate([np.full(part.channels, part.before is not None) for part in parts])
        scale = _scale(_peaks(statistics, name), sums, free, _WORTH_TABLES if tables else _WORTH)
        if scale is None:
            continue
        found[name] = scale
        for part, own in zip(parts, np.split(scale, np.cumsum([part.channels for part in parts])[:-1]), strict=True):
            if part.before is None:
                continue
            if makers[part.before].attrs.get("activation") == "RELU6":
                np.maximum(own, 1.0, out=own)  # what is clamped at 6 must not be less clamped than that
            found[part.name] = own
            if part.before != part.name:
                inner = _peaks(statistics, part.before)
                found[part.before] = _levelled(inner, 1 / np.maximum(inner, inner.max() / _LARGEST))
    return found


def scalable_tensors(prepared: Graph) -> set[str]:
    """Tensors whose channels `equalised` can scale."""
    scalable = [(name, part) for name, parts, _ in _scalable(prepared) for part in parts if part.before is not None]
    return {name for tensor, part in scalable for name in (tensor, part.name, part.before) if name is not None}


@dataclass(frozen=True)
class _Part:
    """Channels of a tensor, which are all that `name` holds. `before` is the result of a sum of products that becomes
    them channel by channel; None where they cannot be scaled."""

    name: str
    channels: int
    before: str | None


def _scalable(prepared: Graph) -> Iterator[tuple[str, list[_Part], list[_Reader]]]:
    """(tensor, what its channels come from, the sums of products that read it)."""
    readers: dict[str, list[Node]] = {}
    for node in prepared.nodes:
        for name in node.inputs:
            if name is not None:
                readers.setdefault(name, []).append(node)
    makers = prepared.producers()
    for tensor in prepared.activations():
        maker = makers.get(tensor.name)
        if maker is None or tensor.name in prepared.outputs or not tensor.shape or tensor.shape[-1] == 1:
            continue
        sums = _sums_reading(prepared, tensor.name, readers.get(tensor.name, []))
        parts = list(_parts(prepared, maker, tensor.name, readers)) if sums else []
        if any(part.before is not None for part in parts):
            yield tensor.name, parts, sums


def _parts(prepared: Graph, maker: Node, name: str, readers: Mapping[str, list[Node]]) -> Iterator[_Part]:
    """The operands of a maker that joins channels, or else the tensor itself."""
    operands = joined_channels(prepared, maker)
    if not operands:
        yield _Part(name, prepared[name].shape[-1], _before(prepared, maker, readers))
    makers = prepared.producers()
    for operand in operands:
        alone = operand in makers and operand not in prepared.outputs and len(readers[operand]) == 1
        before = _before(prepared, makers[operand], readers) if alone else None
        yield _Part(operand, prepared[operand].shape[-1], before)


def joined_channels(graph: Graph, node: Node) -> list[str]:
    """The operands of a node that joins them along their last axis; none where it does something else."""
    operands = moved_operands(node) if kind_of(node) == "move" else []
    channels = sum((graph[name].shape or (0,))[-1] for name in operands)
    return operands if len(operands) > 1 and graph[node.outputs[0]].shape[-1] == channels else []


def _before(prepared: Graph, maker: Node, readers: Mapping[str, list[Node]]) -> str | None:
    """The result of a sum of products that becomes the maker's result channel by channel: that result itself, or the
    operand of a function. None where there is no such."""
    if kind_of(maker) == "mac":
        scalable = maker.attrs.get("activation", "NONE") in ("NONE", "RELU", "RELU6")
        return maker.outputs[0] if scalable else None
    if maker.op != FUNCTION or maker.inputs[0] in prepared.outputs:
        return None
    operand = maker.inputs[0] or ""
    source = prepared.producers().get(operand)
    plain = source is not None and kind_of(source) == "mac" and source.attrs.get("activation", "NONE") == "NONE"
    return operand if plain and len(readers[operand]) == 1 else None


def _sums_reading(prepared: Graph, name: str, nodes: list[Node]) -> list[_Reader]:
    """All readers of a tensor, or none where one of them is no sum of products over its pixels."""
    sums = []
    for node in nodes:
        reader = _Reader.of(prepared, node) if kind_of(node) == "mac" and node.inputs[0] == name else None
        if reader is None:
            return []
        sums.append(reader)
    return sums


def _peaks(statistics: Statistics, name: str) -> Array:
    tensor = statistics.tensors[name]
    return np.maximum(np.abs(tensor.low), np.abs(tensor.high)).astype(np.float64)


def _levelled(peak: Array, wanted: Array) -> Array:
    """Scales in proportion to `wanted`, as large as the tensor's range allows: no channel goes beyond the widest as it
    is, and those that were less wide keep headroom. 1 for channels that are as good as dead."""
    widest = peak.max()
    alive = peak * _LARGEST > widest
    level = np.where(alive, peak * wanted, 0.0)
    level = np.minimum(level * widest / max(level.max(), 1e-300), np.maximum(widest / HEADROOM, peak))
    return np.asarray(np.where(alive, level / np.where(alive, peak, 1), 1.0))


def _scale(peak: Array, sums: list[_Reader], free: Array, worth: float) -> Array | None:
    """The scale with the least expected error, 1 where a channel is not free to have one; None where there is too
    little to gain."""
    some = np.maximum(peak, peak.max() / _LARGEST)
    if not some.max() > 0:
        return None
    column = np.sqrt(sum((reader.matrix**2).sum((1, 3)).reshape(-1) for reader in sums))
    column = np.maximum(column, max(column.max(), 1e-30) / _LARGEST)
    plain = sum(reader.error(np.ones(len(peak)), peak) for reader in sums)
    scales = [np.where(free, _levelled(peak, column**columns / some**own), 1.0) for own, columns in _EXPONENTS]
    errors = [sum(reader.error(scale, peak) for reader in sums) for scale in scales]
    best = int(np.argmin(errors))
    return scales[best] if errors[best] < worth * plain else None


# -- applying ----------------------------------------------------------------------------------------------------------
def equalised(float_graph: Graph, scales: Scales) -> Graph:
    """A float graph with the same outputs in which every tensor named in `scales` is that much larger, channel by
    channel. Multiplications that sums of products cannot take in are MUL nodes with attr `equalise`, which
    `quant.prepare` makes part of a function."""
    graph = float_graph.copy()
    nodes: list[Node] = []
    plain: dict[str, str] = {}  # scaled tensor → the same not scaled
    for node in graph.nodes:
        is_sum, carries = QUANTISE[node.op].kind == "mac", _carries(float_graph, node, scales)
        scaled_inputs = {node.inputs[0]} if is_sum else set(node.inputs) if carries else set()
        inputs = [name if name in scaled_inputs else plain.get(name or "", name) for name in node.inputs]
        node = Node(node.op, inputs, list(node.outputs), dict(node.attrs), node.name)
        result = node.outputs[0]
        nodes.append(node)
        if is_sum:
            _absorb(graph, node, scales.get(inputs[0] or ""), scales.get(result))
        if result not in scales or carries:
            continue
        scale = scales[result].astype(np.float32)
        inner = graph.add_tensor(f"{result}/plain", graph[result].shape, graph[result].dtype)
        plain[result] = inner.name
        if is_sum:
            nodes.append(_multiplication(graph, result, 1 / scale, inner.name))
        else:
            node.outputs[0] = inner.name
            nodes.append(_multiplication(graph, inner.name, scale, result))
    graph.nodes = nodes
    graph.prune()
    return graph


def _carries(graph: Graph, node: Node, scales: Scales) -> bool:
    """Whether a node joins channels that are scaled as those of its result are."""
    operands = joined_channels(graph, node) if node.outputs[0] in scales else []
    if not operands or not scales.keys() & set(operands):
        return False
    joined = np.concatenate([scales.get(name, np.ones(graph[name].shape[-1])) for name in operands])
    return np.array_equal(joined, scales[node.outputs[0]])


def _multiplication(graph: Graph, operand: str, scale: Array, result: str) -> Node:
    factor = graph.add_constant(f"{result}/scale", scale.astype(np.float32))
    return Node("MUL", [operand, factor.name], [result], {"activation": "NONE", EQUALISE: True}, result)


def _absorb(graph: Graph, node: Node, operand: Array | None, result: Array | None) -> None:
    """Divide the columns of the node's weights, multiply its rows and its bias."""
    rule = QUANTISE[node.op]
    weight = graph[node.inputs[rule.weight] or ""]
    assert weight.data is not None
    data = weight.data
    if operand is not None:
        reader = _Reader.of(graph, node)
        assert reader is not None
        data = reader.divided(operand)
    if result is not None:
        shape = [1] * data.ndim
        shape[rule.channel_axis] = -1
        data = (data * result.reshape(shape)).astype(np.float32)
        name = node.inputs[rule.bias] if len(node.inputs) > rule.bias else None
        if name is not None and (bias := graph[name].data) is not None:
            node.inputs[rule.bias] = graph.add_constant(name, (bias * result).astype(np.float32)).name
    if data is not weight.data:
        node.inputs[rule.weight] = graph.add_constant(weight.name, data).name


def scaled(statistics: Statistics, scales: Scales) -> Statistics:
    """Statistics as the equalised network has them; histograms of scaled tensors as far as they were counted."""
    known = {name: equalised_name(name) for name in scales if equalised_name(name) in statistics.tensors}
    missing = {name: (name, np.asarray(scale, np.float32)) for name, scale in scales.items() if name not in known}
    tensors = dict(with_scaled(statistics, missing).tensors)
    tensors.update((name, statistics.tensors[counted]) for name, counted in known.items())
    return replace(statistics, tensors=tensors)
