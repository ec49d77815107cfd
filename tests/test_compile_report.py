"""The compiler's report: figures by hand, files that agree with each other, and a page that needs nothing else."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgs import products
from sgs.cli import compiler_tool, image_files, sgs_converter
from sgs.compile import compile_graph, summarise
from sgs.config.chips import Chip, load_chip
from sgs.errors import UserError
from sgs.img import BatchMode, Compute, Dma, Image, Kernel, Layer, Place, Program, Space, TensorRef, image_bytes
from sgs.ir import Graph
from sgs.numeric.types import DType
from sgs.pipelines import compile_report
from sgs.registry import MOVE
from sgs.report.charts import engine_bars, quantity, roof_rates, roofline, roofline_keys, ticks
from sgs.report.compile import CompileReport, csv_text, describe_image, engine_of, json_text
from sgs.report.compile_page import page_text
from sgs.report.compile_trace import kernel_work, trace_text
from sgs.report.memory import ByteMap, moved_bytes, moved_tensors, operand_spans, stays, used_bytes
from sgs.report.page_style import SCRIPT
from shipped import CALIBRATION, CHIP, SOURCE, converted, sample_list
from shipped import SCRIPT as PREPROCESS
from test_cascade import pyramid
from test_compile import Fixed, chain, concat, packed_weights, residual


@pytest.fixture(scope="module")
def chip() -> Chip:
    """4 × 16 MAC and 16 vector operations a cycle, 2 bytes of DRAM a cycle in bursts of 1024: no use in cutting."""
    return replace(
        load_chip("ibopper"), macs_per_cycle=64, mac_inputs=4, mac_outputs=16, int16_divisor=4, vector_lanes=16,
        clock_hz=800, dram_bytes_per_second=1600, dram_latency_cycles=10, alignment=1024,
    )  # fmt: skip


def one_conv(dtype: DType = DType.UINT8, channels: int = 16, weights: DType = DType.INT8) -> Graph:
    f = Fixed()
    return f.done(f.conv(f.input("x", (1, 8, 8, 4), dtype), channels, 3, dtype, weights))


def one_sum() -> Graph:
    f = Fixed()
    return f.done(f("ADD", f.input("x", (1, 8, 8, 8)), f.input("y", (1, 8, 8, 8)), activation="NONE"))


def mixed() -> tuple[Image, Chip]:
    """Pieces, bands, copies within SRAM and tensors that leave the chip."""
    small = replace(load_chip("ibopper"), sram_bytes=9000)
    return compile_graph(pyramid(), small), small


def described(graph: Graph, chip: Chip) -> tuple[Image, CompileReport]:
    image = compile_graph(graph, chip)
    return image, describe_image(image, chip, len(image_bytes(image)))


# -- by hand -----------------------------------------------------------------------------------------------------------
def test_a_convolution_by_hand(chip: Chip) -> None:
    """x 256, w 576, b 64 bytes in and y 1,024 out: a burst of 512 cycles each; 8·8·16 results of 36 MAC: 576 cycles.

    The last load ends at 3·512 + 10, the sum of products at 1,546 + 576, the store at 2,122 + 512 + 10.
    """
    image, report = described(one_conv(), chip)
    (layer,), network = report.layers, report.network
    assert asdict(layer) == {
        "index": 0, "name": "conv_2d", "opcode": "CONV_2D", "activation_bits": 8, "weight_bits": 8, "macs": 36864,
        "vector_ops": 0, "read_bytes": 896, "written_bytes": 1024, "mac_cycles": 576, "vector_cycles": 0,
        "dma_cycles": 4 * 512, "start": 0, "end": 2644, "span_cycles": 2644, "ideal_mac_cycles": 576,
        "mac_utilisation": pytest.approx(576 / 2644), "bound_by": "dma", "commands": 5, "pieces": 1,
    }  # fmt: skip
    assert network.latency_seconds == pytest.approx(2644 / 800)
    assert network.frames_per_second == pytest.approx(800 / 2644)
    assert (network.cycles, network.mac_cycles, network.dma_cycles) == (2644, 576, 2048)
    assert (network.dram_read_bytes, network.dram_written_bytes, network.dram_bytes) == (896, 1024, 1920)
    assert (network.compulsory_bytes, network.compulsory_ratio) == (1920, 1)
    assert network.bandwidth_bytes_per_second == pytest.approx(1920 * 800 / 2644)
    assert network.bandwidth_share == pytest.approx(1920 * 800 / 2644 / 1600)
    assert network.mac_utilisation == pytest.approx(576 / 2644)
    assert (network.arena_peak, network.arena_lower_bound, network.arena_gap) == (0, 0, 0)
    assert (network.sram_peak, network.sram_lower_bound, network.sram_gap) == (4096, 4096, 0)
    assert network.image_bytes == len(image_bytes(image))
    assert network.weights_bytes == 640 and 0 < network.coded_weights_bytes <= 640
    counts = {"total": 5, "computations": 1, "loads": 3, "stores": 1, "sram_copies": 0, "dram_copies": 0, "kernels": 1}
    assert asdict(report.commands) == counts


def test_sixteen_bits_by_hand(chip: Chip) -> None:
    """A 16-bit multiply-accumulate takes the place of four, and 4 of the array's 16 outputs are used: 8·8·9·4 cycles
    where a full array would take a quarter; bursts are as many as before."""
    _, report = described(one_conv(DType.INT16, 4), chip)
    (layer,) = report.layers
    assert (layer.activation_bits, layer.macs, layer.ideal_mac_cycles, layer.mac_cycles) == (16, 9216, 576, 2304)
    assert (layer.read_bytes, layer.written_bytes, layer.end) == (512 + 144 + 16, 512, 4372)


def test_a_sum_by_hand(chip: Chip) -> None:
    """Two loads of 1,024 bytes, 512 results of two operations, a store of 1,024 bytes."""
    image, report = described(one_sum(), chip)
    (layer,) = report.layers
    assert (layer.activation_bits, layer.weight_bits) == (16, 0)
    assert (layer.vector_ops, layer.vector_cycles, layer.mac_cycles, layer.macs) == (1024, 64, 0, 0)
    assert (layer.read_bytes, layer.written_bytes, layer.dma_cycles) == (2048, 1024, 3 * 512)
    assert (layer.start, layer.end) == (0, 2 * 512 + 10 + 64 + 512 + 10)
    assert (layer.mac_utilisation, layer.bound_by, report.network.mac_utilisation) == (0, "dma", 0)
    assert [engine_of(image, command) for command in image.programs[0].commands] == ["dma", "dma", "vector", "dma"]


def test_a_trace_by_hand(chip: Chip) -> None:
    image = compile_graph(one_conv(), chip)
    events = [event for event in json.loads(trace_text(image, chip))["traceEvents"] if event["ph"] == "X"]
    cycle = 1e6 / 800
    times = [(event["cat"], event["ts"] / cycle, event["dur"] / cycle) for event in events]
    loads = [("dma", 512 * n, 512) for n in range(3)]
    assert times == [*loads, ("mac", 1546, 576), ("dma", 2122, 512)]
    assert sorted((e["args"]["tensor"], e["args"]["bytes"]) for e in events[:3]) == [("b", 64), ("w", 576), ("x", 256)]
    assert {key: events[3]["args"][key] for key in ("macs", "cycles", "cycle")} == {
        "macs": 36864,
        "cycles": 576,
        "cycle": 1546,
    }
    store = events[4]["args"]
    assert (store["from"], store["to"], store["bytes"], store["latency_cycles"]) == ("sram", "output", 1024, 10)
    assert {event["name"] for event in events} == {"conv_2d"}


def test_what_lies_in_sram_by_hand(chip: Chip) -> None:
    image = compile_graph(one_conv(), chip)
    found = {stay.name: (stay.source, stay.size, stay.end) for stay in stays(image, image.programs[0])}
    result = image.tensors[image.outputs[0].tensor].name
    assert found == {
        "x": (Space.INPUT, 256, 2122),
        "w": (Space.WEIGHTS, 576, 2122),
        "b": (Space.WEIGHTS, 64, 2122),
        result: (Space.SRAM, 1024, 2644),
    }
    steps = used_bytes(stays(image, image.programs[0]))
    assert [cycle for cycle, _ in steps] == [0, 512, 1024, 1546, 2122, 2644]
    assert (max(size for _, size in steps), steps[-1]) == (1920, (2644, 0))


# -- what must add up --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [chain, residual, concat, packed_weights, pyramid])
@pytest.mark.parametrize("sram", [0, 9000])
def test_totals_are_the_sums_of_layers_and_commands(make: Callable[[], Graph], sram: int) -> None:
    chip = load_chip("ibopper")
    chip = replace(chip, sram_bytes=sram or chip.sram_bytes)
    image, report = described(make(), chip)
    network, layers, commands = report.network, report.layers, image.programs[0].commands
    for total, part in (
        ("macs", "macs"), ("vector_ops", "vector_ops"), ("mac_cycles", "mac_cycles"), ("dma_cycles", "dma_cycles"),
        ("vector_cycles", "vector_cycles"), ("ideal_mac_cycles", "ideal_mac_cycles"),
        ("dram_read_bytes", "read_bytes"), ("dram_written_bytes", "written_bytes"),
    ):  # fmt: skip
        assert getattr(network, total) == sum(getattr(layer, part) for layer in layers), total
    assert sum(layer.commands for layer in layers) == report.commands.total == len(commands)
    assert sum(layer.pieces for layer in layers) == report.commands.computations
    assert max(layer.end for layer in layers) == network.cycles
    counts = asdict(report.commands)
    assert counts.pop("total") == sum(counts.values()) - counts["kernels"]
    bars = engine_bars(image, chip, 0)
    for engine in ("mac", "vector", "dma"):
        busy = sum(getattr(layer, f"{engine}_cycles") for layer in layers)
        assert busy == sum(sum(bar.busy.values()) for bar in bars[engine]), engine
        assert all(a.end <= b.start for a, b in itertools.pairwise(bars[engine])), "an engine does one thing at a time"
    for layer in layers:
        by_engine = {engine: getattr(layer, f"{engine}_cycles") for engine in ("mac", "vector", "dma")}
        assert by_engine[layer.bound_by] == max(by_engine.values())
        assert 0 <= layer.mac_utilisation <= 1


def test_trace_has_every_command() -> None:
    image, chip = mixed()
    commands = image.programs[0].commands
    record = json.loads(trace_text(image, chip))
    events = [event for event in record["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(commands)
    assert all(set(event) >= {"pid", "tid", "ts", "dur", "name", "args"} for event in events)
    threads = {e["tid"]: e["args"]["name"] for e in record["traceEvents"] if e.get("name") == "thread_name"}
    assert sorted(threads.values()) == ["DMA engine", "MAC array", "vector unit"]
    assert Counter(event["tid"] for event in events) == Counter(
        {"mac": 1, "vector": 2, "dma": 3}[engine_of(image, command)] for command in commands
    )
    for thread in threads:  # events of one thread that overlap would be drawn wrongly
        mine = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["tid"] == thread)
        assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(mine))
    moved = sum(moved_bytes(command) for command in commands if isinstance(command, Dma))
    assert sum(event["args"].get("bytes", 0) for event in events) == moved
    work = [kernel_work(image, image.kernels[c.kernel]).macs for c in commands if isinstance(c, Compute)]
    assert [event["args"]["macs"] for event in events if "macs" in event["args"]] == work


def test_csv_parses_back() -> None:
    image, chip = mixed()
    image = replace(image, layers=tuple(replace(layer, name=f'a,"{layer.name}"\n模') for layer in image.layers))
    report = describe_image(image, chip, 1)
    rows = list(csv.DictReader(io.StringIO(csv_text(report), newline="")))
    kinds = {name: type(value) for name, value in asdict(report.layers[0]).items()}
    parsed = [{name: kinds[name](value) for name, value in row.items()} for row in rows]
    assert parsed == [asdict(layer) for layer in report.layers]


def test_json_says_the_same(chip: Chip) -> None:
    _, report = described(residual(), chip)
    record = json.loads(json_text(report))
    assert record["layers"] == [asdict(layer) for layer in report.layers]
    assert record["network"] == {**asdict(report.network), "batches": [1]}
    assert record["commands"] == asdict(report.commands)
    assert record["chip"]["macs_per_cycle"] == {"value": 64, "provenance": "modelled"}
    assert record["chip"]["name"] == "ibopper" and record["format"] == 1


# -- memory ------------------------------------------------------------------------------------------------------------
def test_a_map_of_bytes() -> None:
    rng = np.random.default_rng(3)
    told: ByteMap[int] = ByteMap()
    expected = np.zeros(60, int)
    for value in range(1, 200):
        low, high = sorted(rng.choice(61, 2, replace=False))
        told.put((int(low), int(high)), value if value % 5 else None)
        expected[low:high] = value if value % 5 else 0
        found = np.zeros(60, int)
        for (a, b), held in told.runs((3, 57)):
            found[a:b] = held
        assert (found[3:57] == expected[3:57]).all() and not found[57:].any()


@pytest.mark.parametrize("make", [chain, residual, concat, packed_weights, pyramid])
@pytest.mark.parametrize("sram", [0, 9000])
def test_rectangles_cover_what_is_in_use_and_nothing_twice(make: Callable[[], Graph], sram: int) -> None:
    """By counting every byte of SRAM at every cycle in which something begins or ends."""
    chip = load_chip("ibopper")
    image = compile_graph(make(), replace(chip, sram_bytes=sram or chip.sram_bytes))
    program = image.programs[0]
    found = stays(image, program)
    rectangles = np.array([(s.low, s.high, s.start, s.end) for s in found])
    for low, high, start, end in rectangles:
        low_, high_ = rectangles[:, 0] < high, rectangles[:, 1] > low
        assert (low_ & high_ & (rectangles[:, 2] < end) & (rectangles[:, 3] > start)).sum() == 1, "two at one place"
    assert max(size for _, size in used_bytes(found)) <= program.sram_size
    for low, high, start, end in _uses(image):
        inside = [s for s in found if s.start <= start and s.end >= end and s.low < high and s.high > low]
        assert sum(min(s.high, high) - max(s.low, low) for s in inside) == high - low, (low, high, start, end)


def _uses(image: Image) -> list[tuple[int, int, int, int]]:
    """(first byte, end, cycle of the write, cycle in which the read is done) of every byte run read from SRAM."""
    written = np.full(image.programs[0].sram_size, -1, np.int64)
    uses = []

    def read(span: tuple[int, int], end: int) -> None:
        edges = [span[0], *(np.flatnonzero(np.diff(written[slice(*span)])) + 1 + span[0]), span[1]]
        uses.extend((a, b, int(written[a]), end) for a, b in itertools.pairwise(edges) if written[a] >= 0)

    for command in image.programs[0].commands:
        end = command.start + command.cycles
        if isinstance(command, Compute):
            operands, results = ([span for _, span in side] for side in operand_spans(image, command))
        else:
            inside = [place.space is Space.SRAM for place in (command.source, command.target)]
            operands = [command.reach(command.source)] if inside[0] else []
            results = [command.reach(command.target)] if inside[1] else []
        for span in operands:
            read(span, end)
        for span in results:  # a result on an operand is there once that has been read
            written[slice(*span)] = end if span in operands else command.start
    return uses


def test_transfers_have_names() -> None:
    image, _ = mixed()
    program = image.programs[0]
    known = {tensor.name for tensor in image.tensors}
    constants = set()
    for command, moved in zip(program.commands, moved_tensors(image, program), strict=True):
        assert (moved is None) == isinstance(command, Compute)
        if moved is None or isinstance(command, Compute):
            continue
        assert moved.name in known and {moved.source, moved.target} <= {*known, ""}
        if command.source.space is Space.INPUT:
            assert moved.source == image.inputs[command.source.buffer].name
        if command.source.space is Space.WEIGHTS:
            constants.add(moved.name)
        if moved.target not in ("", moved.source):
            assert image.layers[command.layer].opcode in MOVE
    read = {image.tensors[kernel.inputs[place]].name for kernel in image.kernels for place in kernel.constants}
    assert constants == read


def test_a_stay_that_loses_bytes_falls_in_two(chip: Chip) -> None:
    """Half of x has been read and is overwritten while the other half is still to be read."""
    half = TensorRef("x", DType.UINT8, (64,)), TensorRef("y", DType.UINT8, (64,))
    sram, outside = Place(Space.SRAM, 0, (1,)), Place(Space.ARENA, 0, (1,))
    commands = (
        Dma(0, (128,), 1, outside, sram, 0, 10),
        Dma(0, (64,), 1, sram, outside, 10, 10),
        Dma(0, (64,), 1, replace(sram, offset=64), outside, 40, 10),
        Compute(1, 0, (64,), (0,), 30, 10),
        Dma(1, (64,), 1, sram, outside, 50, 10),
    )
    layers, kernels = (Layer("a", "ABS"), Layer("b", "ABS")), (Kernel("ABS", (0,), (1,)),)
    program = Program(1, 128, 128, commands, sram_size=128)
    image = Image("", "", BatchMode.N_BUF, (1,), (), (), half, kernels, layers, (program,))
    found = [(s.name, s.low, s.high, s.start, s.end) for s in stays(image, program)]
    assert found == [("x", 0, 64, 0, 30), ("x", 64, 128, 0, 50), ("y", 0, 64, 30, 60)]


# -- the page ----------------------------------------------------------------------------------------------------------
VOID = {"img", "br", "meta", "input", "line"}


class Page(HTMLParser):
    """Tags, attributes and text of a page whose tags are all closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append((self.open[-1] if self.open else "", data))


@pytest.fixture(scope="module")
def page() -> str:
    image, chip = mixed()
    named = [replace(layer, name=f"<b>{layer.name} & 'co'\" 模") for layer in image.layers]
    image = replace(image, layers=tuple(named), model_name="</title><script>alert(1)</script>")
    return page_text(image, describe_image(image, chip, 12345))


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    parsed = Page(page)
    assert parsed.tags["script"] == parsed.tags["style"] == 1 and "b" not in parsed.tags
    assert not {name for _, name, _ in parsed.attributes} & {"src", "srcset", "action", "data", "poster"}
    assert all(value and value[0] == "#" for _, name, value in parsed.attributes if name == "href")
    assert not set(parsed.tags) & {"link", "img", "iframe", "object", "embed", "base"}
    outside = [text for tag, text in parsed.words if tag in ("style", "script")]
    assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|XMLHttp|import\(", "".join(outside))
    assert any(value and "default-src 'none'" in value for _, name, value in parsed.attributes if name == "content")
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on") and name != "on"]


def test_the_page_has_its_parts(page: str) -> None:
    parsed = Page(page)
    image, _ = mixed()
    assert parsed.tags["svg"] == 3
    assert parsed.tags["tr"] == 1 + len(image.layers) + 1 + 2 + len(load_chip("ibopper").figures)
    headings = [text for tag, text in parsed.words if tag == "h2"]
    assert headings == ["Engines over time", "SRAM over time", "Roofline", "Cost by layer", "Chip"]
    buttons = [text for tag, text in parsed.words if tag == "button"]
    assert {"layer", "operator", "MAC", "bound by", "span", "pieces"} <= set(buttons)
    assert sum(parsed.tags[tag] for tag in ("rect", "circle")) == parsed.tags["title"] - 1
    dots = sum(bool(layer.macs) for layer in image.layers)
    assert parsed.tags["circle"] == dots > 0
    assert not re.search(r'="(nan|inf|-?\d+e)', page, re.IGNORECASE)
    assert "prefers-color-scheme:dark" in page and 'name="viewport"' in page


@pytest.mark.parametrize(
    ("dtype", "weights", "roofs", "keys"),
    [
        (DType.UINT8, DType.INT8, {51200: ["8 bit"]}, ["d8"]),
        (DType.INT16, DType.INT8, {51200: ["8 bit"], 12800: ["16 bit"]}, ["d16"]),
        (DType.UINT8, DType.INT4, {51200: ["8 bit"], 102400: ["8 bit, 4-bit weights"]}, ["d8w4"]),
        (DType.INT16, DType.INT4, {51200: ["8 bit"], 25600: ["16 bit, 4-bit weights"]}, ["d16w4"]),
    ],
)
def test_every_dot_is_under_the_roof_of_its_numbers(
    dtype: DType, weights: DType, roofs: dict[float, list[str]], keys: list[str], chip: Chip
) -> None:
    """64 · 800 multiply-accumulates a second, a quarter of them of 16 bits, twice as many with 4-bit weights; with DRAM
    that takes no time the layer is close to it."""
    fast = replace(chip, dram_bytes_per_second=1 << 30, dram_latency_cycles=0)
    image, report = described(one_conv(dtype, weights=weights), fast)
    (layer,) = report.layers
    assert (layer.activation_bits, layer.weight_bits) == (dtype.bits, weights.bits)
    assert roof_rates(report) == roofs
    assert [key for key, _ in roofline_keys(report)] == keys
    (own,) = [rate for rate, words in roofs.items() if words == [roofline_keys(report)[0][1]]]
    assert 0.9 * own < layer.macs * 800 / layer.span_cycles <= own
    page = page_text(image, report)
    assert f'class="{keys[0]}"><title>' in roofline(report)
    assert re.findall(r'<span class="key (d\w+)">', page) == keys, "the legend lists what is there"


def test_roofs_of_one_height_are_one(chip: Chip) -> None:
    """16-bit activations at half the rate, 4-bit weights at twice; without a multiplier they are as all others."""
    _, report = described(one_conv(DType.INT16, weights=DType.INT4), chip)
    assert roof_rates(replace(report, chip=replace(chip, int16_divisor=2))) == {
        51200: ["8 bit", "16 bit, 4-bit weights"]
    }
    _, report = described(one_conv(weights=DType.INT4), chip)
    assert list(roof_rates(replace(report, chip=replace(chip, int4_multiplier=1)))) == [51200]


def cells(page: str, part: str) -> list[list[str]]:
    """Rows of the table of layers, tags left out."""
    table = page.partition('<table id="layers">')[2].partition("</table>")[0]
    inside = table.partition(f"<{part}>")[2].partition(f"</{part}>")[0]
    lines = re.findall(r"<tr[^>]*>(.*?)</tr>", inside, re.DOTALL)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in lines]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in rows]


def test_the_table_of_layers() -> None:
    """What matters is in front, the name keeps its full text in the title, and the last row is the frame."""
    image, chip = mixed()
    report = describe_image(image, chip, 1)
    page = page_text(image, report)
    (heads,), layers, (total,) = (cells(page, part) for part in ("thead", "tbody", "tfoot"))
    assert heads[:6] == ["#", "layer", "operator", "bound by", "span", "MAC utilisation"]
    assert {"bits", "weight bits", "DRAM bytes read", "DRAM bytes written"} < set(heads)
    assert {len(row) for row in (*layers, total)} == {len(heads)}
    for row, layer in zip(layers, report.layers, strict=True):
        assert row[1:4] == [layer.name, layer.opcode, layer.bound_by]
        assert f'class="t name" title="{layer.name}">' in page
    summed = ("MAC", "vector ops", "DRAM bytes read", "DRAM bytes written", "MAC cycles", "vector cycles", "DMA cycles")
    for heading in (*summed, "commands", "pieces"):
        column = heads.index(heading)
        numbers = [int(row[column].replace(",", "")) for row in (*layers, total)]
        assert sum(numbers[:-1]) == numbers[-1], heading
    assert total[1] == "all layers" and total[heads.index("span")] == f"{report.network.cycles:,}"
    assert re.search(r"\.name\{left:0;[^}]*text-overflow:ellipsis", page)


def test_the_search_looks_at_words_alone(page: str) -> None:
    """The script joins the columns of class "t": name, operator and bound."""
    table = page.partition('<table id="layers">')[2]
    assert re.findall(r'<th scope="col" class="t[^>]*><button type="button">([^<]*)', table) == [
        "layer",
        "operator",
        "bound by",
    ]
    assert 'contains("t")' in SCRIPT and '.join(" ")' in SCRIPT and "row.textContent" not in SCRIPT


def test_a_gap_over_nothing(chip: Chip) -> None:
    """A network that needs no arena and takes none has no gap, as the summary says."""
    image, report = described(one_conv(), chip)
    assert "<dt>Arena gap</dt><dd>0.00%<small>" in page_text(image, report)
    assert "gap 0.00%" in summarise(image, chip).text()


def test_the_script_is_well_formed(tmp_path: Path) -> None:
    bare = re.sub(r'"(?:\\.|[^"\\])*"|/\[[^/]*\]/g|/\\s\+/', "", SCRIPT)
    pairs = {")": "(", "]": "[", "}": "{"}
    opened: list[str] = []
    for sign in bare:
        if sign in pairs.values():
            opened.append(sign)
        elif sign in pairs:
            assert opened.pop() == pairs[sign]
    assert not opened and "</" not in SCRIPT
    if shutil.which("node"):
        file = tmp_path / "script.js"
        file.write_text(SCRIPT, encoding="utf-8")
        subprocess.run(["node", "--check", str(file)], check=True, timeout=60)


def test_the_page_of_many_commands_stays_small() -> None:
    """However many commands there are, bars are at least 2 of 1,090 units wide, or apart by as much."""
    image, chip = mixed()
    program = image.programs[0]
    many = []
    for turn in range(40):
        shift = turn * program.cycles
        many += [replace(command, start=command.start + shift) for command in program.commands]
    image = replace(image, programs=(replace(program, commands=tuple(many), cycles=40 * program.cycles),))
    narrowest = 2 * image.programs[0].cycles / 1090
    for bars in engine_bars(image, chip, narrowest).values():
        assert len(bars) <= 1090 + 1
        assert all(b.start - a.start >= narrowest for a, b in zip(bars, bars[2:], strict=False))


def test_a_network_without_multiply_accumulates(chip: Chip) -> None:
    image, report = described(one_sum(), chip)
    assert Page(page_text(image, report)).tags["circle"] == 0


def test_numbers_in_words() -> None:
    said = [quantity(value, "B") for value in (0, 1, 999, 999.6, 1000, 12748896, 3.2e9)]
    assert said == ["0 B", "1 B", "999 B", "1.00 kB", "1.00 kB", "12.7 MB", "3.20 GB"]
    assert ticks(5_895_526) == [1e6 * n for n in range(6)]
    assert ticks(0) == [0] and ticks(393216, 6) == [1e5 * n for n in range(4)]


# -- the programs ------------------------------------------------------------------------------------------------------
def compiled(tmp_path: Path, *options: object) -> int:
    fixed = converted() / "digits_fixed.sim"
    command = ["-m", fixed, "-o", tmp_path / "digits.img", "--soc_version", CHIP, *options]
    return compiler_tool.main([str(word) for word in command])


def test_report_of_a_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compiled(tmp_path, "--report") == 0
    files = {path.name: path for path in tmp_path.iterdir()}
    stem = "digits_report"
    assert set(files) == {"digits.img", f"{stem}.json", f"{stem}.csv", f"{stem}.html", f"{stem}.trace.json"}
    assert files["digits.img"].read_bytes() == (converted() / "digits.img").read_bytes(), "the report changes nothing"
    record = json.loads(files[f"{stem}.json"].read_text("utf-8"))
    assert record["network"]["image_bytes"] == files["digits.img"].stat().st_size
    trace = json.loads(files[f"{stem}.trace.json"].read_text("utf-8"))["traceEvents"]
    assert sum(event["ph"] == "X" for event in trace) == record["commands"]["total"]
    rows = list(csv.DictReader(files[f"{stem}.csv"].open(encoding="utf-8", newline="")))
    assert [row["name"] for row in rows] == [layer["name"] for layer in record["layers"]]
    page = files[f"{stem}.html"].read_text("utf-8")
    assert f"{record['network']['latency_seconds'] * 1e3:.3f} ms" in page
    assert len(page) < 1_000_000 and sum(Page(page).tags.values()) < 8000
    assert f"Report at: {files[f'{stem}.html']}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "b/x_report"),
        ("a", "a/x_report"),
        ("a/costs", "a/costs"),
        ("a/costs.html", "a/costs"),
        ("a/costs.trace.json", "a/costs"),
        ("a/v1.2", "a/v1.2"),
    ],
)
def test_where_a_report_goes(given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    paths = products.compile_report_paths(Path("b/x.img"), given)
    assert [str(path) for path in paths] == [f"{expected}{ending}" for ending in products.REPORT_FILES]
    assert products.compile_report_paths(Path("b/x.img"), None) == ()


def test_a_report_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--report: is not a name"):
        products.compile_report_paths(Path("x.img"), str(tmp_path / ".html"))


def test_a_failed_report_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: Any) -> tuple[str, ...]:
        return (*compile_report(*arguments)[:3], "\ud800")  # not to be written in UTF-8

    monkeypatch.setattr(image_files, "compile_report", broken)
    assert compiled(tmp_path, "--report") == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert compiled(tmp_path, "--report", tmp_path / "missing" / "x") == 2
    assert "its folder" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_report_in_one_go(tmp_path: Path) -> None:
    options = ["-i", str(sample_list(tmp_path, CALIBRATION, 2)), "-n", str(PREPROCESS), "--quant_level", "L1"]
    target = ["--output_file", str(tmp_path / "d.img"), "--report", str(tmp_path / "cost"), "--export_models"]
    assert sgs_converter.main(["onnx", *SOURCE, *options, *target]) == 0
    made = {path.name for path in tmp_path.iterdir()}
    assert {"cost.json", "cost.csv", "cost.html", "cost.trace.json", "d.img", "d_fixed.sim", "d_float.sim"} <= made
    assert json.loads((tmp_path / "cost.json").read_text("utf-8"))["network"]["layers"] > 10
