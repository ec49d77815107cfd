"""The report on a conversion as text: parts that are there, parts that are left out, names that look like HTML."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from xml.etree import ElementTree

import numpy as np
import pytest

from report_cases import HOSTILE, calibration, compared_layer, comparison, errors, histogram, name_of, whole_report
from sgs.config.chips import load_chip
from sgs.report.accuracy_charts import error_chart, histogram_chart, left_out
from sgs.report.calibration import short
from sgs.report.compared import Comparison
from sgs.report.histogram import Histogram, bin_counts, even
from sgs.report.histogram_page import histogram_picture, histogram_words
from sgs.report.layer_rows import Form, LayerRow, compared_rows, forms_of
from sgs.report.page_style import STYLE
from sgs.report.report_page import CalibrationResult, Report, report_text
from test_compile import chain
from test_compile_report import Page, cells, described

WITHOUT = Report("nothing")


@pytest.fixture(scope="module")
def page() -> str:
    return report_text(whole_report(40))


def headings(page: str) -> list[str]:
    return [text for tag, text in Page(page).words if tag == "h2"]


def rows(page: str) -> list[dict[str, str]]:
    """The rows of the table of tensors, by the columns' headings."""
    text = page.replace('<table id="tensors">', '<table id="layers">', 1)
    (heads,) = cells(text, "thead")
    return [dict(zip(heads, row, strict=True)) for row in cells(text, "tbody")]


# -- parts -------------------------------------------------------------------------------------------------------------
def test_everything_is_there(page: str) -> None:
    accuracy = ["Summary", "Pictures", "Causes and remedies", "Errors by layer", "Network", "Distributions"]
    cost = ["Cost", "Engines over time", "SRAM over time", "Roofline", "Cost by layer", "Chip"]
    assert headings(page) == [*accuracy, "Bits and sizes", *cost, "Settings"]
    parsed = Page(page)
    anchors = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(anchors) == len(set(anchors))
    links = [value or "" for _, name, value in parsed.attributes if name == "href"]
    assert {link[0] for link in links} == {"#"} and {link[1:] for link in links} <= set(anchors)
    assert sum(link.startswith("#tensors-") for link in links) == 40


def test_parts_without_data_are_left_out() -> None:
    assert headings(report_text(WITHOUT)) == []
    assert headings(report_text(replace(WITHOUT, comparison=comparison(4)))) == [
        "Summary", "Causes and remedies", "Errors by layer", "Network", "Bits and sizes",
    ]  # fmt: skip
    unmeasured = replace(calibration(3), findings=())
    layers = tuple(replace(layer, alone=None, accumulated=None) for layer in unmeasured.layers)
    quiet = replace(WITHOUT, calibration=replace(unmeasured, layers=layers))
    assert headings(report_text(quiet)) == ["Network"]
    assert "alone" not in rows(report_text(quiet))[0], "columns without data are left out too"


def test_nothing_is_loaded_and_nothing_of_a_name_is_html(page: str) -> None:
    parsed = Page(page)
    assert parsed.tags["script"] == parsed.tags["style"] == 1 and parsed.tags["in"] == parsed.tags["x"] == 0
    sources = [value or "" for _, name, value in parsed.attributes if name == "src"]
    assert len(sources) == 4 and all(source.startswith("data:image/jpeg;base64,/9j/") for source in sources)
    shown = base64.b64decode(sources[0].partition(",")[2])
    assert shown == whole_report(40).pictures[0].float_jpeg
    policy = next(value for _, name, value in parsed.attributes if value and "default-src" in value)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    assert not re.search(
        r"https?:|url\(|@import", "".join(text for tag, text in parsed.words if tag in ("style", "script"))
    )
    assert sum(HOSTILE in text for tag, text in parsed.words if tag in ("th", "b")) == 2
    assert not re.search(r'="(nan|inf|-?\d+e)', page, re.IGNORECASE)


# -- the summary -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("decibels", "kind", "said"),
    [
        (41.9, "good", "as accurate as"),
        (30.0, "good", "as accurate as"),
        (29.9, "", "close to"),
        (12.0, "bad", "far from"),
    ],
)
def test_the_verdict_is_on_the_worst_output(decibels: float, kind: str, said: str) -> None:
    layers = [replace(compared_layer(n), accumulated=errors(value)) for n, value in enumerate((3.0, decibels, 60.0))]
    found = Comparison("float .sim x", "fixed .sim y", 2, tuple(layers), (name_of(1), name_of(2)), (), (), None)
    page = report_text(replace(WITHOUT, comparison=found))
    (verdict,) = re.findall(r'<div class="verdict ?(\w*)"><p><b class="(?:\w*)">(.*?)</b>', page)
    share = f"{100 * 10 ** (-decibels / 20):.2g} %"
    assert verdict[0] == kind and verdict[1].startswith("The fixed network is ")
    assert f"{short(name_of(1))} differs most, by {share} of its size ({decibels:.1f} dB)" in verdict[1]
    assert said in verdict[1]


def test_what_stands_for_outputs_is_not_called_one() -> None:
    layers = [replace(compared_layer(n), accumulated=errors(33.0 + n)) for n in range(3)]
    behind = (name_of(1), name_of(2))
    found = Comparison("float .sim x", "fixed .sim y", 2, tuple(layers), (), (), (), None, behind)
    page = report_text(replace(WITHOUT, comparison=found))
    assert f"of what its outputs are made from {short(name_of(1))} differs most, by" in page
    assert f"Before the outputs: {name_of(1)}" in page and f"Output {name_of(1)}" not in page


def test_what_is_not_finite_is_not_drawn() -> None:
    layers = [compared_layer(n) for n in range(3)]
    layers[1] = replace(layers[1], accumulated=replace(errors(9.0), sqnr=math.nan, relative_l1=math.inf))
    found = Comparison("a", "b", 1, tuple(layers), (layers[0].name,), (), (), None)
    page = report_text(replace(WITHOUT, comparison=found))
    assert f"its output {name_of(0)} differs by 13 % of its size" in page
    assert rows(page)[1]["so far"] == rows(page)[1]["relative L1"] == "–" and "nan" not in page.partition("<script>")[0]
    assert page.count('class="dot so-far"') == 2


def test_the_summary_tells_bits_size_and_time(page: str) -> None:
    report = whole_report(40)
    assert report.cost is not None
    network = report.cost[1].network
    assert "5 of 32 sums of products are in 16 bit" in page
    assert f"A frame takes {network.latency_seconds * 1e3:.3f} ms on ibopper" in page
    assert f"The first layer that goes wrong is {escape(HOSTILE)}." in page
    assert "Give it another range." in page and "dead output channels" in page


def test_other_models_are_called_what_they_are() -> None:
    found = replace(comparison(4), a="ONNX x.onnx", b="debug .sim Debug_x.sim")
    page = report_text(replace(WITHOUT, comparison=found, histograms=(histogram(name_of(3)),)))
    assert "Debug .sim Debug_x.sim is as accurate as ONNX x.onnx" in page and "fixed network" not in page


# -- the table ---------------------------------------------------------------------------------------------------------
def test_the_table_has_what_is_known_from_everywhere(page: str) -> None:
    found = rows(page)
    assert len(found) == 40
    third, fourth = found[3], found[4]
    assert third["layer"] == name_of(3) and third["shape"] == "1×7×5×19" and third["operator"] == "CONV_2D"
    assert (third["bits"], third["weight bits"], third["weight bytes"]) == ("16", "16", "2,304")
    assert (third["low"], third["high"], third["range by"]) == ("-4.5", "5.5", "kl")
    assert (third["alone"], third["so far"]) == (f"{25 + 3 * 13 % 40:.1f}", f"{18 + 3 * 7 % 30:.1f}")
    assert third["16 bit gains"] == "+0.03" and third["MACs"] == "2.5%"
    assert third["cosine"] == f"{errors(18 + 21).cosine:.6f}"
    assert fourth["alone"] == fourth["weight bits"] == "–" and fourth["operator"] == "CONCATENATION"
    assert "cycles" not in third, "no layer of the image is called as any here"


def test_cycles_come_from_the_layer_that_makes_the_tensor() -> None:
    graph = chain()
    image, cost = described(graph, load_chip("ibopper"))
    forms = forms_of(graph)
    layers = tuple(replace(layer, name=name) for layer, name in zip(calibration(len(forms)).layers, forms, strict=True))
    result = CalibrationResult(layers, (), tuple(graph.outputs))
    report = Report("x", calibration=result, forms=forms, cost=(image, cost))
    spans = {layer.name: layer.span_cycles for layer in cost.layers}
    told = {row.name: row.cycles for row in report.rows()}
    made = {node.outputs[0]: node for node in graph.nodes}
    assert {name for name, cycles in told.items() if cycles is not None} >= {
        name for name, node in made.items() if node.op in ("CONV_2D", "TABLE")
    }
    assert all(cycles == spans[forms[name].label[0]] for name, cycles in told.items() if cycles is not None)


def test_an_output_is_held_as_its_codes_are() -> None:
    graph = chain()
    (output,) = graph.outputs
    node = graph.producers()[output]
    assert node.op == "DEQUANTIZE" and graph[output].dtype.is_float
    form = forms_of(graph)[output]
    assert form == forms_of(graph)[node.inputs[0] or ""] and form.bits < 32
    conv = next(node for node in graph.nodes if node.op == "CONV_2D")
    weights = graph[conv.inputs[1] or ""]
    form = forms_of(graph)[conv.outputs[0]]
    assert (form.weight_bits, form.weight_bytes) == (8, weights.elements)


def test_weights_count_once_where_an_output_leaves_as_real_numbers() -> None:
    codes = replace(compared_layer(0), name="y/codes", weight_bits=8)
    real = replace(compared_layer(0), name="y", weight_bits=None)
    form = Form((1, 5), 16, 8, 70, ("y", "CONV_2D"))
    rows = compared_rows([codes, real], {"y/codes": form, "y": form})
    assert [row.weight_bytes for row in rows] == [70, None]


# -- charts ------------------------------------------------------------------------------------------------------------
def test_marks_are_where_the_errors_are() -> None:
    """Up is better; 0 dB and 80 dB are the ends of the scale, what is beyond is drawn at the end."""
    values = [(40.0, 40.0), (None, 0.0), (120.0, 80.0), (None, None)]
    layers = [LayerRow(f"t{n}", "ADD", alone=alone, so_far=so_far) for n, (alone, so_far) in enumerate(values)]
    chart = error_chart(layers, "rows")
    places = {
        kind: re.findall(rf'cx="(\S+)" cy="(\S+)" r="\S+" class="dot {kind}"', chart) for kind in ("so-far", "alone")
    }
    xs, ys = zip(*((float(x), float(y)) for x, y in places["so-far"]), strict=True)
    assert np.allclose(np.diff(xs), xs[1] - xs[0]) and ys[1] > ys[0] > ys[2]
    assert ys[0] == pytest.approx((ys[1] + ys[2]) / 2, abs=0.2)
    assert [float(y) for _, y in places["alone"]] == [ys[0], ys[2]]
    assert re.findall(r'href="#(\S+)"', chart) == ["rows-0", "rows-1", "rows-2"]
    assert error_chart(layers[3:], "rows") == ""


def test_bins_of_a_histogram() -> None:
    values = np.array([0.0, 0.5, 1.0, np.nan, np.inf], np.float32)
    assert bin_counts(values, 0, 1, 4).tolist() == [1, 0, 1, 1]
    assert even(2.0, 2.0) == (1.5, 2.5) and even(np.inf, -np.inf) == (0.0, 1.0) and even(-1.0, 3.0) == (-1.0, 3.0)
    low, high = even(1e6, 1e6)
    assert low < 1e6 < high and bin_counts(np.full(7, 1e6), low, high, 4).sum() == 7


def test_what_is_beyond_the_range() -> None:
    plain = Histogram("t", 0.0, 4.0, (5, 3, 1, 1), (5, 5, 0, 0), 0.0, 2.0)
    assert left_out(plain) == 0.2 and histogram_words(plain) == "range 0 to 2; about 20.00% beyond it"
    assert left_out(replace(plain, range_low=None)) is None and left_out(replace(plain, range_high=4.0)) == 0.0
    chart = histogram_chart(plain)
    assert re.findall(r'<rect x="(\S+)" y="0" width="(\S+)"', chart) == [("0", "0"), ("140", "140")]
    assert len(re.findall('class="range"', chart)) == 2
    far = histogram_chart(replace(plain, range_low=-40.0, range_high=40.0))
    assert 'class="range"' not in far, "ends that are out of view are not drawn"


def test_heights_are_logarithms_of_counts() -> None:
    chart = histogram_chart(Histogram("t", 0.0, 1.0, (0, 1, 3, 3), (), None, None))
    (path,) = re.findall(r' d="([^"]+)"', chart)
    heights = [92 - float(height) for height in re.findall(r"V([\d.]+)h", path)]
    assert heights == pytest.approx([0, 92 * 0.48, 92 * 0.96], abs=0.06), "equal neighbours are one step"
    assert re.findall(r"h([\d.]+)", path) == ["70", "70", "140"]


def test_a_picture_of_its_own() -> None:
    root = ElementTree.fromstring(histogram_picture(histogram("a<b")))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root[0].text == "a<b"


def test_distributions_in_view_are_those_of_outputs_and_worst_layers(page: str) -> None:
    front, _, behind = page.partition('<h2 id="distributions">')[2].partition("<details>")
    report = whole_report(40)
    assert front.count("<figure>") + behind.partition("</details>")[0].count("<figure>") == 40
    alone = {row.name: row.alone for row in report.rows() if row.alone is not None}
    there = [histogram.name for histogram in report.histograms]
    worst = sorted((value, name) for name, value in alone.items() if name in there)[:8]
    shown = set(re.findall(r"<figcaption>(.*?)</figcaption><svg", front))
    assert shown == {name for _, name in worst} | {name_of(38), name_of(39)}


# -- colours -----------------------------------------------------------------------------------------------------------
def luminances(block: str) -> dict[str, float]:
    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    found = {}
    for name, digits in re.findall(r"--([\w-]+):#([0-9a-f]{3,6})", block):
        full = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        red, green, blue = (linear(int(full[at : at + 2], 16)) for at in (0, 2, 4))
        found[name] = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return found


def schemes() -> Iterator[dict[str, float]]:
    light, _, rest = STYLE.partition("@media(prefers-color-scheme:dark){")
    yield luminances(light)
    yield luminances(rest.partition("}}")[0])


@pytest.mark.parametrize("scheme", list(schemes()), ids=["light", "dark"])
def test_colours_stand_out(scheme: dict[str, float]) -> None:
    """Words by 4.5, marks by 3 (WCAG 2.2, 1.4.3 and 1.4.11)."""

    def contrast(name: str, back: str) -> float:
        high, low = sorted((scheme[name], scheme[back]), reverse=True)
        return (high + 0.05) / (low + 0.05)

    words = [(name, back) for name in ("text", "soft", "accent", "good", "bad") for back in ("back", "panel")]
    marks = [(name, "panel") for name in ("weights", "activations", "limit", *(f"c{n}" for n in range(6)))]
    assert {pair: contrast(*pair) for pair in [*words, ("text", "mark")] if contrast(*pair) < 4.5} == {}
    assert {pair: contrast(*pair) for pair in marks if contrast(*pair) < 3} == {}
