"""What the ini asks of a network's inputs and outputs, next to what the network has there.

Real inputs and outputs have codes of their own; integers and truth values of the network itself, such as numbers of
words and of classes, are fed and returned as they are. A format is refused where it cannot hold what it would carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sgs.config.fit import mismatch
from sgs.config.formats import ENTRIES, F32, RAW_TYPES, S16, U8, U16, InputSpec, OutputSpec, integer_format
from sgs.config.input_config import INPUT, OUTPUT, InputConfig
from sgs.errors import UserError
from sgs.ir import Graph
from sgs.numeric.types import DType
from sgs.ops.gather import indexed_entries, only_picks
from sgs.quant.spans import integer_spans, within

Refuse = Callable[..., UserError]
FORMATS = ("input_formats",)


@dataclass(frozen=True)
class Ports:
    """Real inputs and outputs whose storage the ini has a say in. `codes`: INT16 whoever reads or makes them, because
    their codes are fed or returned; `fed_bytes`: inputs that are fed as UINT8, whose codes are the values themselves;
    `byte_results`: outputs that leave as UINT8 codes.
    """

    codes: frozenset[str] = frozenset()
    fed_bytes: frozenset[str] = frozenset()
    byte_results: frozenset[str] = frozenset()


NO_PORTS = Ports()


def ports_of(config: InputConfig, graph: Graph) -> Ports:
    """What the ini says of a float graph's inputs and outputs."""
    fed = {spec.name: spec for spec in config.inputs if not spec.is_picture and graph[spec.name].dtype.is_float}
    left = {spec.name: spec.format for spec in config.outputs if graph[spec.name].dtype.is_float}
    codes = [name for name, spec in fed.items() if spec.input_format == S16 or not spec.quantize]
    return Ports(
        frozenset([*(name for name in codes if fed[name].input_format != U8), *(n for n in left if left[n] == S16)]),
        frozenset(name for name, spec in fed.items() if spec.input_format == U8),
        frozenset(name for name in left if left[name] == U8),
    )


def port_problems(graph: Graph, config: InputConfig) -> list[UserError]:
    """Every format that cannot hold what a float graph reads or returns there, and outputs that no input has a part in;
    of the inputs and outputs that the graph has."""
    return [*_inputs(graph, config), *_outputs(graph, config)]


def table_problems(graph: Graph, config: InputConfig) -> list[UserError]:
    """Every input that picks from a table beyond the reach of all formats: a float network does so all the same."""
    problems, tables = [], indexed_entries(graph)
    for spec in (spec for spec in config.inputs if spec.name in graph.inputs):
        entries, straight = tables.get(spec.name, 0), only_picks(graph, spec.name)
        if integer_format(entries, straight=straight) is None:
            reach = f"{ENTRIES[U16]:,} with {U16}" if straight else f"{ENTRIES[S16]:,} with {S16}"
            reason = f"'{spec.name}': the network looks up one of {entries:,} entries, and inputs reach {reach}"
            remedy = "make the table smaller, or cut the network behind it with ConvertTool's --inputs"
            problems.append(mismatch(config, INPUT, FORMATS, reason, remedy))
    return problems


# -- inputs ------------------------------------------------------------------------------------------------------------
def _inputs(graph: Graph, config: InputConfig) -> Iterator[UserError]:
    entries = indexed_entries(graph)
    for spec in (spec for spec in config.inputs if spec.name in graph.inputs):
        refuse = partial(mismatch, config, INPUT)
        if not graph[spec.name].dtype.is_float:
            yield from _integer_input(graph, spec, entries.get(spec.name, 0), refuse)
        elif spec.input_format == U16:
            reason = f"'{spec.name}': {U16} is for numbers that pick from a table, and the network reads real ones here"
            yield refuse(FORMATS, reason, f"write {F32}, or {S16} to feed codes")


def _integer_input(graph: Graph, spec: InputSpec, entries: int, refuse: Refuse) -> Iterator[UserError]:
    kind, fed, name = graph[spec.name].dtype.name.lower(), spec.input_format, f"'{spec.name}'"
    straight = only_picks(graph, spec.name)
    wanted = integer_format(entries, straight=straight)
    if wanted is None:
        pass  # `table_problems`: no fault of the ini's
    elif fed not in ENTRIES:
        remedy = f"set training_input_formats and input_formats to {wanted}"
        yield refuse(FORMATS, f"{name}: {fed}, and the network reads {kind} here", remedy)
    elif fed == U16 and not straight:
        reason = "is for numbers that go straight into a table (Gather), and the network computes with these"
        yield refuse(FORMATS, f"{name}: {U16} {reason}", f"write {wanted}")
    elif entries > ENTRIES[fed]:
        reason = f"{name}: the network looks up one of {entries:,} entries, and {fed} reaches {ENTRIES[fed]:,}"
        yield refuse(FORMATS, reason, f"write {wanted}")
    if not spec.quantize and fed in ENTRIES:
        reason = f"{name}: FALSE, and the network reads {kind} here, of which no codes are made"
        yield refuse(["quantizations"], reason, "write TRUE")


# -- outputs -----------------------------------------------------------------------------------------------------------
def _outputs(graph: Graph, config: InputConfig) -> Iterator[UserError]:
    spans, fed = integer_spans(graph), set(graph.inputs)
    for node in graph.nodes:
        if not fed.isdisjoint(node.inputs):
            fed.update(node.outputs)
    for spec in (spec for spec in config.outputs if spec.name in graph.outputs):
        dtype, span = RAW_TYPES[spec.format], spans.get(spec.name)
        if spec.name not in fed:
            yield mismatch(config, OUTPUT, ["outputs"], f"'{spec.name}' is a constant", "leave it out")
        elif span is not None and not dtype.is_float and not within(span, dtype):
            yield _too_narrow(config, spec, span)


def _too_narrow(config: InputConfig, spec: OutputSpec, span: tuple[int, int]) -> UserError:
    held = [name for name in (S16, F32) if RAW_TYPES[name] is DType.FLOAT32 or within(span, RAW_TYPES[name])]
    reason = (
        f"'{spec.name}': the network's integers reach from {span[0]} to {span[1]}, and {spec.format} does not hold them"
    )
    remedy = f"write {held[0]}" + (" and dequantizations TRUE" if held[0] == F32 else "")
    return mismatch(config, OUTPUT, ["output_formats", "dequantizations"], reason, remedy)
