"""The tensors of a network, of a .sim or as an image knows them: what they are, who makes and who reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sgs.config.nearest import listing
from sgs.img.image import Compute, Dma, Image, Place, Program, Space, TensorRef, packed_bytes
from sgs.ir.graph import Graph, Tensor
from sgs.numeric.nibbles import unpack_nibbles
from sgs.numeric.quantise import Array, QuantParams
from sgs.numeric.types import DType
from sgs.report.columns import aligned
from sgs.report.image_info import quant_facts, quant_text
from sgs.report.memory import ByteMap, Span, moved_tensors, operand_spans, stays

Facts = dict[str, Any]
_READERS = 3  # named in a line of the table


def statistics(values: Array, quant: QuantParams | None) -> Facts:
    """Smallest, largest and mean value as stored, and the share of those that stand for 0; None for no values, and
    where they are not finite."""
    if not values.size:
        return {"min": None, "max": None, "mean": None, "zero_share": None}
    zero: Any = 0
    if quant is not None:
        zero = quant.zero_point[0] if quant.per_tensor else quant.shaped(values.ndim)[1]
    found = {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean(dtype=np.float64)),
        "zero_share": float(np.mean(values == zero)),
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


# -- of a .sim ---------------------------------------------------------------------------------------------------------
def graph_tensors(graph: Graph) -> list[Facts]:
    """Every tensor: inputs and results in the order of the network, then constants."""
    producers, readers = graph.producers(), graph.readers()
    order = [*graph.activations(), *(tensor for tensor in graph.tensors.values() if tensor.is_constant)]
    found = []
    for tensor in order:
        producer = producers.get(tensor.name)
        found.append(
            {
                "name": tensor.name,
                "kind": _kind(graph, tensor),
                "dtype": tensor.dtype.name,
                "shape": list(tensor.shape),
                "bytes": packed_bytes(tensor.shape, tensor.dtype),
                **quant_facts(tensor.quant),
                "producer": None if producer is None else _node(producer.name or producer.outputs[0], producer.op),
                "readers": [_node(node.name or node.outputs[0], node.op) for node in _each_once(readers[tensor.name])],
                **({} if tensor.data is None else {"values": statistics(tensor.data, tensor.quant)}),
            }
        )
    return found


def _kind(graph: Graph, tensor: Tensor) -> str:
    if tensor.is_constant:
        return "constant"
    sides = {"input": tensor.name in graph.inputs, "output": tensor.name in graph.outputs}
    return " and ".join(side for side, there in sides.items() if there) or "activation"


def _node(name: str, opcode: str) -> dict[str, str]:
    return {"name": name, "operator": opcode}


def _each_once(items: Iterable[Any]) -> list[Any]:
    return list({id(item): item for item in items}.values())


# -- of an image -------------------------------------------------------------------------------------------------------
class _Found:
    """What the commands tell of one tensor."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[DType, tuple[int, ...]], TensorRef] = {}
        self.spans: dict[tuple[Space, int], list[Span]] = {}
        self.makers: dict[int, None] = {}  # layers, in order
        self.readers: dict[int, None] = {}
        self.shared: dict[str, None] = {}  # names under which others know some of its bytes
        self.reads: dict[Span, tuple[int, int]] = {}  # bytes in SRAM → first and last cycle in which they are read

    def read(self, span: Span, command: Compute) -> None:
        """Note that a computation reads bytes in SRAM."""
        start, end = self.reads.get(span, (command.start, 0))
        self.reads[span] = min(start, command.start), max(end, command.start + command.cycles)
        self.readers[command.layer] = None

    def lies(self, space: Space, buffer: int, span: Span) -> None:
        """Note bytes in DRAM; those that touch or overlap become one span."""
        spans = self.spans.setdefault((space, buffer), [])
        low, high = span
        kept = []
        for other in spans:
            if other[0] <= high and low <= other[1]:
                low, high = min(low, other[0]), max(high, other[1])
            else:
                kept.append(other)
        self.spans[space, buffer] = sorted([*kept, (low, high)])


def image_tensors(image: Image) -> list[Facts]:
    """Every tensor that commands name, in order of the first one; pieces and bytes in memory as they are used."""
    program = image.programs[0]
    found = _followed(image, program)
    in_sram: dict[str, list[Facts]] = {}
    for stay in stays(image, program):
        in_sram.setdefault(stay.name, []).append(_sram_place((stay.low, stay.high), stay.start, stay.end))
    for name, one in found.items():  # what has another name where it is written
        if name not in in_sram:
            in_sram[name] = [_sram_place(span, *cycles) for span, cycles in one.reads.items()]
    ports = {side: {image.tensors[port.tensor].name for port in both} for side, both in _sides(image)}
    result = []
    for name, one in found.items():
        if not one.pieces:
            continue
        ref = max(one.pieces.values(), key=lambda piece: piece.nbytes)
        sides = [side for side, named in ports.items() if name in named]
        constant = any(space is Space.WEIGHTS for space, _ in one.spans)
        result.append(
            {
                "name": name,
                "kind": "constant" if constant else " and ".join(sides) or "activation",
                "dtype": ref.dtype.name,
                "pieces": [list(piece.shape) for piece in one.pieces.values()],
                "largest_piece_bytes": ref.nbytes,
                **quant_facts(ref.quant),
                "producers": [_layer(image, layer) for layer in one.makers],
                "readers": [_layer(image, layer) for layer in one.readers],
                "shares_bytes_with": [other for other in one.shared if found[other].pieces],
                "places": [*_dram_places(image, one), *in_sram.get(name, [])],
                **({"values": _constant_values(image, one, ref)} if constant else {}),
            }
        )
    return result


def _sides(image: Image) -> Any:
    return (("input", image.inputs), ("output", image.outputs))


def _layer(image: Image, number: int) -> dict[str, str]:
    return _node(image.layers[number].name, image.layers[number].opcode)


def _sram_place(span: Span, first: int, last: int) -> Facts:
    return {"memory": "sram", "from": span[0], "to": span[1], "first_cycle": first, "last_cycle": last}


def _followed(image: Image, program: Program) -> dict[str, _Found]:
    """What the commands tell of every tensor. A tensor that only has another shape than one that was written is made by
    the layers that made that."""
    found: dict[str, _Found] = {}
    held: ByteMap[str] = ByteMap()
    computing = {command.layer for command in program.commands if isinstance(command, Compute)}
    for ref in (image.tensors[port.tensor] for _, ports in _sides(image) for port in ports):
        found.setdefault(ref.name, _Found()).pieces[ref.dtype, ref.shape] = ref
    for command, moved in zip(program.commands, moved_tensors(image, program), strict=True):
        if isinstance(command, Compute):
            reads, writes = operand_spans(image, command)
            for number, span in reads:
                one = _piece(found, image.tensors[number])
                one.read(span, command)
                for name in {name: None for _, name in held.runs(span)}:
                    _share(found, image.tensors[number].name, name)
            for number, span in writes:
                _piece(found, image.tensors[number]).makers[command.layer] = None
                held.put(span, image.tensors[number].name)
        elif moved is not None:
            names = [name or moved.name for name in (moved.source, moved.target)]
            source, target = (found.setdefault(name, _Found()) for name in names)
            _note(source, command, command.source)
            _note(target, command, command.target)
            if command.layer in computing:
                _share(found, names[1], names[0])
            elif source is not target:
                source.readers[command.layer] = None
                target.makers[command.layer] = None
            if command.target.space is Space.SRAM:
                held.put(command.reach(command.target), moved.name)
    return found


def _piece(found: dict[str, _Found], ref: TensorRef) -> _Found:
    one = found.setdefault(ref.name, _Found())
    one.pieces[ref.dtype, ref.shape] = ref
    return one


def _share(found: Mapping[str, _Found], name: str, written: str) -> None:
    """Note that a tensor's bytes, or some of them, are written as another, by the layers that make that."""
    if name and written and name != written:
        found[name].makers.update(found[written].makers)
        found[name].shared[written] = None
        found[written].shared[name] = None


def _note(one: _Found, command: Dma, place: Place) -> None:
    if place.space is not Space.SRAM:
        one.lies(place.space, place.buffer, command.reach(place))


def _dram_places(image: Image, one: _Found) -> list[Facts]:
    places = []
    for (space, buffer), spans in one.spans.items():
        names = {Space.INPUT: image.inputs, Space.OUTPUT: image.outputs}.get(space)
        port = {} if names is None else {"buffer": names[buffer].name}
        places += [{"memory": space.name.lower(), **port, "from": low, "to": high} for low, high in spans]
    return places


def _constant_values(image: Image, one: _Found, ref: TensorRef) -> Facts:
    """Statistics of the bytes that are loaded of a constant."""
    parts = [image.weights[low:high] for low, high in one.spans[Space.WEIGHTS, 0]]
    raw = np.concatenate(parts)
    if ref.dtype is DType.INT4:
        whole = ref.nbytes == raw.size
        values = unpack_nibbles(raw, math.prod(ref.shape) if whole else 2 * raw.size)
    else:
        whole = raw.size == ref.nbytes
        values = raw[: raw.size // ref.dtype.numpy.itemsize * ref.dtype.numpy.itemsize].view(ref.dtype.numpy)
    if whole:
        return statistics(values.reshape(ref.shape), ref.quant)
    # The axis of the zero points is that of a piece: of many channels, only codes that are symmetric are known.
    return statistics(values, ref.quant if ref.quant is not None and ref.quant.per_tensor else None)


# -- in words ----------------------------------------------------------------------------------------------------------
def tensors_table(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a tensor, under a heading."""
    rows = [["tensor", "kind", "type", "bytes", "quantisation", "made by", "read by"]]
    for one in facts:
        size = one.get("bytes", one.get("largest_piece_bytes"))
        rows.append(
            [
                one["name"],
                one["kind"],
                _type(one),
                f"{size:,}",
                quant_text(one),
                _named(_makers(one), _READERS),
                _readers(one, _READERS),
            ]
        )
    return aligned(rows)


def tensor_lines(one: Mapping[str, Any]) -> list[str]:
    """All facts of one tensor."""
    rows = [("kind", one["kind"]), ("type", _type(one))]
    if "bytes" in one:
        rows.append(("bytes", f"{one['bytes']:,}"))
    rows += [("quantisation", quant_text(one)), ("made by", _named(_makers(one))), ("read by", _named(one["readers"]))]
    if one.get("shares_bytes_with"):
        rows.append(("shares bytes", f"with {', '.join(one['shares_bytes_with'])}"))
    if "values" in one:
        rows.append(("values", _values(one["values"])))
    lines = [one["name"], *(f"  {label:14}{value}" for label, value in rows)]
    if len(one.get("pieces", ())) > 1:
        lines += [f"  {'pieces':14}{'  '.join(str(piece) for piece in one['pieces'])}"]
    for number, place in enumerate(one.get("places", ())):
        where = f"[{place['buffer']}]" if "buffer" in place else ""
        cycles = f", cycles {place['first_cycle']:,} to {place['last_cycle']:,}" if "first_cycle" in place else ""
        span = f"{place['from']:#x}..{place['to']:#x} ({place['to'] - place['from']:,} bytes{cycles})"
        lines.append(f"  {'lies in' if not number else '':14}{place['memory']}{where} {span}")
    return lines


def _makers(one: Mapping[str, Any]) -> list[dict[str, str]]:
    if "producers" in one:
        return list(one["producers"])
    return [one["producer"]] if one["producer"] else []


def _readers(one: Mapping[str, Any], most: int) -> str:
    """Who reads a tensor; of one that is read only under another name, which."""
    shared = one.get("shares_bytes_with")
    if one["readers"] or not shared:
        return _named(one["readers"], most)
    return f"shares bytes with {listing(shared, most)}"


def _type(one: Mapping[str, Any]) -> str:
    if "shape" in one:
        return f"{one['dtype']}{one['shape']}"
    count = len(one["pieces"])
    largest = max(one["pieces"], key=math.prod)
    return f"{one['dtype']}{largest}" + (f" and {count - 1} other" if count > 1 else "")


def _named(nodes: Sequence[Mapping[str, str]], most: int | None = None) -> str:
    shown = [f"{node['operator']} {node['name']}" for node in nodes[:most]]
    more = f" and {len(nodes) - most} more" if most is not None and len(nodes) > most else ""
    return ", ".join(shown) + more or "-"


def _values(values: Mapping[str, Any]) -> str:
    shown = {name: "-" if value is None else f"{value:.6g}" for name, value in values.items()}
    zeros = "-" if values["zero_share"] is None else f"{values['zero_share']:.2%}"
    return f"{shown['min']} to {shown['max']}, mean {shown['mean']}, {zeros} zero"
