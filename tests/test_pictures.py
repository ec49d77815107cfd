"""Pictures in every format: from the script's pixels over the bytes that boards are fed to the outputs of all
simulators."""

from __future__ import annotations

import itertools
import math
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from calibrator_custom import fixed_simulator, float_simulator, offline_simulator, utils
from closeness import cosine
from conventions import ROOT
from onnx_compare import run_onnx
from onnx_snippets import Net
from sgs.cli import sgs_converter, show_img_info, simulator_tool
from sgs.compile.fold_pixels import with_direct_pixels
from sgs.config.chips import load_chip
from sgs.config.fit import check_against_names
from sgs.config.formats import CHANNELS, INPUT_FORMATS, InputSpec
from sgs.config.input_config import InputConfig, parse_input_config
from sgs.data.board import to_board
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine, run_reference
from sgs.errors import UserError
from sgs.img import Image, OfflineEngine, image_bytes, parse_image, write_image
from sgs.ir import Graph, Node
from sgs.numeric.nv12 import CHROMA, read_nv12
from sgs.numeric.quantise import Array, activation_params, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops.image import normalisation_table
from sgs.pipelines import CalibrationOptions, apply_plan, calibrate, compile_fixed, convert
from sgs.quant.export import activations_of
from sgs.quant.plan import QuantPlan
from sgs.quant.ranges import pixel_range
from sgs.sim import read_sim
from sgs.simulation import Simulator
from shipped import CALIBRATION, CHIP, INI, MODEL, SCRIPT, TEST, sample_list, simulated

SHAPES = sorted((ROOT / "SGS_Models/resource/shapes").rglob("*.png"))
PICTURES = SHAPES[40:43]  # that results are compared on
HEIGHT, WIDTH = 27, 21
MEANS = {"whole": ("112", "64.0"), "half": ("127.5", "127.5"), "apart": ("123.7:116.3:103.5", "58.4:57.1:57.4")}
ALIGNMENTS = ((0, 0), (24, 0), (16, 6), (0, 8), (32, 3), (3, 0))  # width, height; 0: the line is left out


# -- the ini: what is legal, and why not -------------------------------------------------------------------------------
def ini_text(training: str, fed: str, layout: str, alignment: tuple[int, int], quantize: bool, mean: str = "") -> str:
    raw = training.startswith("RAWDATA")
    means, stds = MEANS[mean or "whole"]
    if ":" not in means:
        means = ":".join([means] * (1 if training == "GRAY" else 3))
    elif training == "GRAY":
        means, stds = means.split(":")[0], stds.split(":")[0]
    lines = ["[INPUT_CONFIG]", "inputs=images", f"training_input_formats={training}", f"input_formats={fed}"]
    lines += [f"quantizations={str(quantize).upper()}", f"input_layouts={layout}"]
    lines += [] if raw else [f"mean={means}", f"std_value={stds}"]
    lines += [f"input_{s}_alignment={v}" for s, v in zip(("width", "height"), alignment, strict=True) if v]
    return "\n".join([*lines, "[OUTPUT_CONFIG]", "outputs=scores,map"])


def model_shape(training: str, layout: str) -> tuple[int, ...]:
    channels = len(CHANNELS.get(training, "?"))
    return (1, channels, HEIGHT, WIDTH) if layout == "NCHW" else (1, HEIGHT, WIDTH, channels)


def refusals(training: str, fed: str, layout: str, alignment: tuple[int, int], quantize: bool) -> list[str]:
    """What a refusal must say, by the table of the manual; none for what is legal."""
    found = []
    feeds = {"GRAY": ("GRAY", "YUV_NV12"), "RGB": ("RGB", "BGR", "RGBA", "BGRA", "YUV_NV12")}
    feeds["BGR"] = feeds["RGB"]
    if fed not in feeds.get(training, (training,)):
        found.append(f"{fed} cannot be fed to a network trained on {training}")
    if layout == "NCHW" and fed in ("RGBA", "BGRA"):
        found.append(f"{fed} has no layout NCHW")
    if not quantize and not training.startswith("RAWDATA"):
        found.append("FALSE for a picture")
    sides = {"GRAY": (True, True), "YUV_NV12": (True, True), "RGBA": (True, False), "BGRA": (True, False)}
    for side, value, allowed in zip(("width", "height"), alignment, sides.get(fed, (False, False)), strict=True):
        if value and fed == "YUV_NV12" and value % 2:
            found.append(f"YUV_NV12 needs a multiple of 2, not {value}")
        if value > 1 and not allowed:
            found.append(f"{fed} has no {side} alignment")
    if not found and fed in ("RGBA", "BGRA") and math.ceil(WIDTH * 4 / (alignment[0] or 1)) * (alignment[0] or 1) % 4:
        found.append(f"which is no whole number of {fed} pixels")
    return found


RAW = [name for name in INPUT_FORMATS if name.startswith("RAWDATA")]
PRODUCT = [
    (training, fed, layout, alignment, quantize)
    for training in (*CHANNELS, *RAW)
    for fed, layout, alignment in itertools.product(INPUT_FORMATS, ("NHWC", "NCHW"), (*ALIGNMENTS, (5, 0)))
    for quantize in ((True, False) if training in CHANNELS else (True,))
]
LEGAL = [case[:4] for case in PRODUCT if not refusals(*case) and case[0] in CHANNELS]


def checked(*case: Any) -> InputConfig:
    config = parse_input_config(ini_text(*case), Path("input_config.ini"))
    shapes = {"images": model_shape(case[0], case[2])}
    check_against_names(config, shapes, {"scores": (1, 10), "map": (1, 1)})
    return config


def test_every_combination_is_legal_or_refused_with_its_reason() -> None:
    refused = 0
    for case in PRODUCT:
        reasons = refusals(*case)
        if not reasons:
            (spec,) = checked(*case).inputs
            assert (spec.training_format, spec.input_format, spec.layout) == case[:3]
            continue
        refused += 1
        with pytest.raises(UserError) as caught:
            checked(*case)
        text = caught.value.render()
        assert all(reason in text for reason in reasons), (case, text)
        assert "input_config.ini" in text and "[INPUT_CONFIG]" in text, case
    assert (len(PRODUCT), len(LEGAL), refused) == (1400, 58, 1334)


def test_raw_data_comes_last() -> None:
    text = """[INPUT_CONFIG]
inputs=a,b
input_formats=RAWDATA_F32_NHWC,RGB
mean=0:0:0
std_value=1
[OUTPUT_CONFIG]
outputs=y"""
    with pytest.raises(UserError, match="RAWDATA inputs must come last: a"):
        parse_input_config(text, Path("input_config.ini"))
    swapped = text.replace("a,b", "b,a").replace("RAWDATA_F32_NHWC,RGB", "RGB,RAWDATA_F32_NHWC")
    assert [spec.name for spec in parse_input_config(swapped, Path("input_config.ini")).inputs] == ["b", "a"]


# -- a small network, for every legal combination ----------------------------------------------------------------------
@lru_cache(maxsize=1)
def scratch() -> Path:
    _kept.append(tempfile.TemporaryDirectory(prefix="sgs_pictures_"))
    return Path(_kept[0].name)


_kept: list[tempfile.TemporaryDirectory[str]] = []
SCRIPT_TEXT = """import cv2
import numpy as np

def image_preprocess(path, norm=True):
    image = cv2.resize(cv2.imread(path), ({width}, {height}), interpolation=cv2.INTER_AREA){order}
    if norm:
        image = ((image - np.array({mean})) / np.array({std})).astype(np.float32)
    return image[None]{layout}
"""
ORDER = {"RGB": "[..., ::-1]", "BGR": "", "GRAY": ".mean(axis=2, keepdims=True).round().astype(np.uint8)"}


@dataclass(frozen=True)
class Trained:
    """A network that was trained on a format, with layout and normalisation; calibrated once, fed anything."""

    training: str
    layout: str
    mean: str

    @cached_property
    def config(self) -> InputConfig:
        return self.fed(self.training, (0, 0))

    def fed(self, fed: str, alignment: tuple[int, int]) -> InputConfig:
        text = ini_text(self.training, fed, self.layout, alignment, True, self.mean)
        return parse_input_config(text, scratch() / "input_config.ini")

    @cached_property
    def script(self) -> Preprocessor:
        (spec,), file = self.config.inputs, scratch() / f"{self.training}_{self.layout}_{self.mean}.py"
        values = {name: list(spec.in_order(getattr(spec, name), self.training)) for name in ("mean", "std")}
        layout = ".transpose(0, 3, 1, 2)" if self.layout == "NCHW" else ""
        text = SCRIPT_TEXT.format(width=WIDTH, height=HEIGHT, order=ORDER[self.training], layout=layout, **values)
        file.write_text(text, encoding="utf-8")
        return Preprocessor(file)

    @cached_property
    def model(self) -> Path:
        channels, net = len(CHANNELS[self.training]), Net(3)
        x = net.input("images", 1, channels, HEIGHT, WIDTH)
        x = net("Relu", net.conv(x, channels, 8, strides=[2, 2]))
        x = net("Relu", net.conv(x, 8, 12))
        scores = net("Flatten", net("GlobalAveragePool", net.conv(x, 12, 9, kernel=1)), result="scores")
        file = scratch() / f"{self.training}.onnx"
        onnx.save(net.model(scores, net("Conv", x, net.weights(5, 12, 3, 3), result="map")), file)
        return file

    @cached_property
    def float_graph(self) -> Graph:
        return convert("onnx", {"model_file": self.model}, self.config)[1]

    @cached_property
    def plan(self) -> QuantPlan:
        options = CalibrationOptions("L2", processes=1)
        samples = [(path,) for path in SHAPES[:24]]
        return calibrate(self.float_graph, self.config, [self.script], samples, options).plan

    @cached_property
    def truth(self) -> dict[str, Array]:
        """Outputs of onnxruntime on the source network for PICTURES, NHWC."""
        floats = [self.script(path, True) for path in PICTURES]
        runs = [
            run_onnx(self.model, {"images": f if self.layout == "NCHW" else f.transpose(0, 3, 1, 2)}) for f in floats
        ]
        found = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
        return {name: v.transpose(0, 2, 3, 1) if v.ndim == 4 else v for name, v in found.items()}

    def fixed(self, config: InputConfig, bits: int = 0) -> Graph:
        """With all sums of products at so many bits, if told."""
        macs = {name: replace(mac, bits=bits or mac.bits) for name, mac in self.plan.macs.items()}
        return apply_plan(self.float_graph, config, replace(self.plan, macs=macs), {})


@lru_cache
def trained(training: str, layout: str, mean: str) -> Trained:
    return Trained(training, layout, mean)


def run_image(image: Image, feeds: dict[str, Array], threads: int = 1) -> dict[str, Array]:
    return OfflineEngine(image, threads=threads).run(feeds)


def compiled(graph: Graph, mode: str, batches: tuple[int, ...]) -> Image:
    """Through the bytes of the file."""
    return parse_image(image_bytes(compile_fixed(graph, load_chip(CHIP), batch_mode=mode, batches=batches)))


def cases() -> Iterator[Any]:
    """Every legal combination; the kinds of normalisation, and of images, by turns."""
    for number, (training, fed, layout, alignment) in enumerate(LEGAL):
        mean, mode = list(MEANS)[number % len(MEANS)], ("n_buf", "one_buf")[number % 2]
        name = f"{training}-{fed}-{layout}-{alignment[0]}-{alignment[1]}-{mean}-{mode}"
        yield pytest.param(training, fed, layout, alignment, mean, mode, id=name)


@pytest.mark.parametrize(("training", "fed", "layout", "alignment", "mean", "mode"), list(cases()))
def test_a_legal_combination_runs_everywhere(
    training: str, fed: str, layout: str, alignment: tuple[int, int], mean: str, mode: str
) -> None:
    network = trained(training, layout, mean)
    config = network.fed(fed, alignment)
    (spec,), graph = config.inputs, network.fixed(config)
    pixels = [network.script(path, False) for path in PICTURES]
    board = np.concatenate([to_board(spec, picture) for picture in pixels])
    assert board[:1].shape == graph["images"].shape == spec.fed_shape(pixels[0].shape)
    engine = FixedEngine(graph, threads=1)
    each = [engine.run({"images": board[k : k + 1]}) for k in range(len(board))]
    fixed = {name: np.concatenate([run[name] for run in each]) for name in each[0]}

    slow = run_reference(graph, {"images": board[:1]})
    assert all(np.array_equal(slow[name], fixed[name][:1]) for name in graph.outputs)
    batches, threads = {"n_buf": ((3,), 2), "one_buf": ((3, 1), 1)}[mode]
    offline = run_image(compiled(graph, mode, batches), {"images": board}, threads)
    assert all(np.array_equal(offline[name], fixed[name]) for name in graph.outputs)

    least = 0.98 if fed == "YUV_NV12" and training != "GRAY" else 0.999
    for name, value in fixed.items():
        assert cosine(network.truth[name], value) >= least, name


def test_every_format_is_tried_in_both_kinds_of_images() -> None:
    assert len({(case.values[1], case.values[5]) for case in cases()}) == 2 * len({case[1] for case in LEGAL})


# -- the bytes ---------------------------------------------------------------------------------------------------------
def spec_of(training: str, fed: str, layout: str = "NHWC", width: int = 1, height: int = 1) -> InputSpec:
    return InputSpec("x", training, fed, width_alignment=width, height_alignment=height, layout=layout)


def noise(*shape: int) -> Array:
    return np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)


def half_up(value: Fraction) -> int:
    return min(max(math.floor(value + Fraction(1, 2)), 0), 255)


def test_nv12_is_what_the_formula_says() -> None:
    """One value after another, in fractions; odd sizes, a size of 1, extremes."""
    for height, width in ((5, 7), (4, 6), (1, 3), (2, 1)):
        image = np.where(noise(height, width, 3) > 80, noise(height, width, 3), 255 * (noise(height, width, 3) % 2))
        board = to_board(spec_of("RGB", "YUV_NV12", width=4, height=6), image[None].astype(np.uint8))[0, :, :, 0]
        rows, columns = -(-height // 6) * 6, -(-width // 4) * 4
        expected = np.zeros((rows * 3 // 2, columns), int)
        for y, x in itertools.product(range(height), range(width)):
            r, g, b = map(int, image[y, x])
            expected[y, x] = half_up(Fraction(218 * r + 732 * g + 74 * b, 1024))
        for y, x in itertools.product(range(0, height, 2), range(0, width, 2)):
            block = [image[min(y + i, height - 1), min(x + j, width - 1)] for i in (0, 1) for j in (0, 1)]
            r, g, b = (sum(int(pixel[c]) for pixel in block) for c in range(3))
            expected[rows + y // 2, x] = half_up(Fraction(-117 * r - 395 * g + 512 * b, 4096) + 128)
            expected[rows + y // 2, x + 1] = half_up(Fraction(512 * r - 465 * g - 47 * b, 4096) + 128)
        assert np.array_equal(board, expected), (height, width)


def test_pixels_of_nv12_are_the_inverse() -> None:
    forward = np.array([[218, 732, 74], [-117, -395, 512], [512, -465, -47]]) / 1024
    inverse = np.linalg.inv(forward)
    assert np.abs(inverse[:, 0] - 1).max() < 1e-3 and np.abs(inverse[:, 1:] * 1024 - CHROMA).max() < 2
    luma = np.array([[0, 1, 2, 3], [100, 101, 102, 255]], np.uint8)
    pixels = np.empty((2, 4, 3), np.uint8)
    read_nv12(luma, np.array([[128, 128, 0, 255]], np.uint8), (2, 1, 0), pixels)
    assert (pixels[:, :2] == luma[:, :2, None]).all()  # no colour
    # U' = -128 takes 237.5 from B, which rounds up to -237; V' = 127 adds 200.04 to R; G: 24 - 59.41 = -35.41
    assert pixels[0, 2].tolist() == [0, 0, 202] and pixels[1, 2].tolist() == [0, 67, 255]
    assert pixels[1, 3].tolist() == [18, 220, 255]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("training", ["RGB", "BGR"])
def test_bytes_of_pixels(training: str, layout: str) -> None:
    nhwc = noise(2, 5, 7, 3)
    rgb = nhwc if training == "RGB" else nhwc[..., ::-1]
    planar = layout == "NCHW"
    picture = nhwc.transpose(0, 3, 1, 2) if planar else nhwc  # views of another order
    for fed, expected in (("RGB", rgb), ("BGR", rgb[..., ::-1])):
        got = to_board(spec_of(training, fed, layout), picture)
        assert got.flags.c_contiguous and np.array_equal(got, expected.transpose(0, 3, 1, 2) if planar else expected)
        if planar:
            continue
        got = to_board(spec_of(training, fed + "A", width=16), picture)
        assert got.shape == (2, 5, 8, 4) and np.array_equal(got[:, :, :7, :3], expected)
        assert (got[:, :, :7, 3] == 255).all() and not got[:, :, 7].any()


def test_bytes_of_grey() -> None:
    grey = noise(2, 5, 7, 1)
    for planar in (False, True):
        layout, picture = ("NCHW", grey.transpose(0, 3, 1, 2)) if planar else ("NHWC", grey)
        got = to_board(spec_of("GRAY", "GRAY", layout, 4, 3), picture)
        assert got.shape == ((2, 1, 6, 8) if planar else (2, 6, 8, 1))
        flat = got.reshape(2, 6, 8)
        assert np.array_equal(flat[:, :5, :7], grey[..., 0]) and flat.sum() == grey.sum()
        nv12 = to_board(spec_of("GRAY", "YUV_NV12", layout, 4, 6), picture)[..., 0]
        assert nv12.shape == (2, 9, 8) and np.array_equal(nv12[:, :5, :7], grey[..., 0]) and nv12.sum() == grey.sum()


# -- the range of pixels -----------------------------------------------------------------------------------------------
def test_a_whole_mean_makes_every_pixel_its_own_code() -> None:
    for mean, std in ((0, 1), (0, 255), (112, 64), (128, 57.38), (255, 3)):
        span = pixel_range((mean,) * 3, (std,) * 3)
        assert span is not None
        params = activation_params(span.low, span.high, DType.UINT8)
        assert np.array_equal(normalisation_table((mean,), (std,), params, DType.UINT8)[:, 0], np.arange(256))
    assert pixel_range((1, 2, 3), (4, 4, 4)) is None and pixel_range((), ()) is None


def test_a_half_mean_is_off_by_no_more_than_rounding() -> None:
    """Mean squared error in grey levels: at best 1/12 for codes that pixels have no relation to."""
    span = pixel_range((127.5,), (127.5,))
    assert span is not None

    def error(low: float, high: float) -> float:
        params = activation_params(low, high, DType.UINT8)
        real = (np.arange(256) - 127.5) / 127.5
        return float(((dequantise(quantise(real, params, DType.UINT8), params) - real) ** 2).mean()) * 127.5**2

    assert error(-1, 1) > 0.24 and error(span.low, span.high) < 0.09


# -- what the compiler leaves out --------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("fed", ["RGB", "BGR", "RGBA", "BGRA", "YUV_NV12"])
def test_pixels_that_are_codes_are_read_by_the_convolution(fed: str, bits: int) -> None:
    network = trained("RGB", "NHWC", "whole")
    config = network.fed(fed, (0, 0))
    graph = network.fixed(config, bits)
    direct = with_direct_pixels(graph)
    assert [node.op for node in graph.nodes].count("NORMALISE_IMAGE") == 1
    first = next(node for node in direct.nodes if node.op != "SPLIT_V")
    assert "NORMALISE_IMAGE" not in [node.op for node in direct.nodes]
    assert first.op == ("NV12_TO_RGB" if fed == "YUV_NV12" else "CONV_2D")
    board = to_board(config.inputs[0], network.script(SHAPES[44], False))
    fixed = FixedEngine(graph, threads=1).run({"images": board})
    image = compiled(graph, "n_buf", (1,))
    assert all(np.array_equal(v, fixed[n]) for n, v in run_image(image, {"images": board}).items())
    assert "NORMALISE_IMAGE" not in [layer.opcode for layer in image.layers]
    slower = compiled(network.fixed(network.fed("RGBA", (24, 0)), bits), "n_buf", (1,))  # alignment has to be left out
    assert "NORMALISE_IMAGE" in [layer.opcode for layer in slower.layers]
    assert image.programs[0].cycles < slower.programs[0].cycles


@pytest.mark.parametrize(("training", "fed", "layout"), [("BGR", "YUV_NV12", "NHWC"), ("RGB", "BGRA", "NHWC")])
def test_pictures_come_in_pieces_where_memory_is_short(training: str, fed: str, layout: str) -> None:
    network = trained(training, layout, "apart")
    config = network.fed(fed, (24, 0))
    graph, chip = network.fixed(config), load_chip(CHIP)
    board = to_board(config.inputs[0], network.script(SHAPES[45], False))
    fixed = FixedEngine(graph, threads=1).run({"images": board})
    first = "NV12_TO_RGB" if fed == "YUV_NV12" else "NORMALISE_IMAGE"
    pieces = []
    for sram in (chip.sram_bytes, 4096):
        image = compile_fixed(graph, replace(chip, sram_bytes=sram))
        assert all(np.array_equal(v, fixed[n]) for n, v in run_image(image, {"images": board}).items())
        kernels = [index for index, kernel in enumerate(image.kernels) if kernel.opcode == first]
        pieces.append(sum(getattr(command, "kernel", -1) in kernels for command in image.programs[0].commands))
    assert pieces[0] <= 2 < pieces[1]


def test_pixels_that_others_read_as_well_stay(tmp_path: Path) -> None:
    """A maximum reads them too, which knows nothing of weights."""
    graph = trained("RGB", "NHWC", "whole").fixed(trained("RGB", "NHWC", "whole").fed("BGR", (0, 0)))
    codes = graph.nodes[0].outputs[0]
    pooled = graph.add_tensor("pooled", (1, HEIGHT - 1, WIDTH, 3), DType.UINT8, quant=graph[codes].quant)
    attrs = {"kernel": (2, 1), "strides": (1, 1), "pads": (0, 0, 0, 0), "activation": "NONE"}
    graph.nodes.append(Node("MAX_POOL_2D", [codes], [pooled.name], attrs))
    graph.outputs.append(pooled.name)
    assert "NORMALISE_IMAGE" in [node.op for node in with_direct_pixels(graph).nodes]


def test_nodes_without_a_first_operand_are_no_hindrance_to_an_export() -> None:
    graph = Graph(nodes=[Node("ONE", [], ["a"]), Node("OTHER", [None, "a"], ["b"])])
    graph.add_tensor("a", (1, 3), DType.FLOAT32)
    graph.add_tensor("b", (1, 5), DType.INT16, quant=activation_params(-1, 2, DType.INT16))
    assert [name for name, _ in activations_of(graph)] == ["b"]


def test_exported_parameters_name_the_input() -> None:
    network = trained("RGB", "NHWC", "apart")
    (name, *_), *_ = activations_of(network.fixed(network.fed("YUV_NV12", (0, 0))))
    assert name == "images"


# -- the Python interface ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    """The digits classifier fed aligned NV12, through the program that converts, in a folder with a name of its own."""
    folder = scratch() / "数字 nv12"
    folder.mkdir()
    text = INI.read_text(encoding="utf-8").replace("\ninput_formats=RGB;", "\ninput_formats=YUV_NV12;")
    text = text.replace("[OUTPUT", "input_width_alignment=48;\ninput_height_alignment=10;\n[OUTPUT")
    (folder / "in put.ini").write_text(text, encoding="utf-8")
    options = ["--model_file", MODEL, "--input_config", folder / "in put.ini", "--soc_version", CHIP, "-n", SCRIPT]
    options += ["-i", sample_list(folder, CALIBRATION, 8), "--quant_level", "L2", "--export_models", "-b", "3"]
    assert sgs_converter.main(["onnx", *map(str, options), "--output_file", str(folder / "digits.img")]) == 0
    return {
        kind: folder / f"digits{end}"
        for kind, end in (("float", "_float.sim"), ("fixed", "_fixed.sim"), ("img", ".img"))
    }


def test_models_tell_and_take_board_bytes(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    picture = Preprocessor(SCRIPT)(TEST / "digit_000.png", norm=False)
    results = []
    for model in (fixed_simulator(files["fixed"]), offline_simulator(files["img"])):
        (told,) = model.get_input_details()
        assert told["shape"].tolist() == [1, 105, 96, 1] and told["dtype"] is np.uint8
        assert (told["input_formats"], told["input_width_alignment"], told["input_height_alignment"]) == (
            "YUV_NV12",
            48,
            10,
        )
        assert "quantization" not in told
        assert list(told)[-1] == "picture_shape" and told["picture_shape"].tolist() == [1, 64, 64, 3]
        turned = np.asfortranarray(picture)  # not contiguous
        board = utils.convert_to_input_formats(turned, told)
        assert board.shape == (1, 105, 96, 1) and board.flags.c_contiguous
        assert np.array_equal(board, utils.convert_to_input_formats(picture[0], told))
        model.set_input(0, board)
        model.invoke()
        results.append(model.get_output(0))
        with pytest.raises(ValueError, match=r"'images': expected .*uint8, got float32"):
            utils.convert_to_input_formats(picture.astype(np.float32), told)
        larger = np.pad(picture, ((0, 0), (0, 1), (0, 26), (0, 0)))  # would be aligned to the same shape
        for wrong in (larger, picture[:, :, :40], picture.transpose(0, 3, 1, 2), picture[..., :1], picture[0, 0]):
            reason = f"expected a RGB picture [NHWC] of shape [1, 64, 64, 3], got {list(wrong.shape)}"
            with pytest.raises(ValueError, match=re.escape(reason)):
                utils.convert_to_input_formats(wrong, told)
    assert np.array_equal(*results) and results[0].argmax() == 7
    (floats,) = float_simulator(files["float"]).get_input_details()
    normalised = Preprocessor(SCRIPT)(TEST / "digit_000.png", norm=True)
    assert np.array_equal(utils.convert_to_input_formats(normalised, floats), normalised)
    with pytest.raises(ValueError, match=r"expected shape \[1, 64, 64, 3\], got \[1, 64, 60, 3\]"):
        utils.convert_to_input_formats(normalised[:, :, :60], floats)
    for wrong in ([floats], {}, None):
        with pytest.raises(ValueError, match=r"detail: expected an entry of get_input_details\(\), got"):
            utils.convert_to_input_formats(normalised, wrong)
    assert show_img_info.main(["-m", str(files["img"])]) == 0
    text = capsys.readouterr().out
    assert "UINT8[1, 105, 96, 1] NHWC, 10,080 bytes" in text
    assert "YUV_NV12" in text and "width 48, height 10" in text and "[1, 64, 64, 3]" in text


def test_the_simulator_dumps_board_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    picture = TEST / "digit_004.png"
    options = ["-i", str(picture), "-n", str(SCRIPT), "-c", "Classification", "--dump_rawdata"]
    options += ["--output", str(tmp_path)]
    spec = InputSpec("images", "RGB", "YUV_NV12", width_alignment=48, height_alignment=10)
    expected = to_board(spec, Preprocessor(SCRIPT)(picture, norm=False))
    results = []
    for file in (files["fixed"], files["img"]):
        assert simulator_tool.main(["-m", str(file), *options]) == 0
        dumped = tmp_path / f"rawdata_{file.name}_digit_004.png_0.bin"
        assert dumped.read_bytes() == expected.tobytes()
        results.append((tmp_path / f"classification_{file.name}_digit_004.png.txt").read_text())
    assert results[0] == results[1]


def test_frames_in_any_number_and_threads_give_the_same(files: dict[str, Path], tmp_path: Path) -> None:
    samples, scripts = [(path,) for path in sorted(TEST.glob("*.png"))[:5]], [Preprocessor(SCRIPT)]
    graph = read_sim(files["fixed"]).graph
    both = tmp_path / "both.img"
    write_image(compile_fixed(graph, load_chip(CHIP), batch_mode="one_buf", batches=(2,)), both)
    found = []
    for file, threads in ((files["fixed"], 1), (files["fixed"], 3), (files["img"], 1), (both, 2)):
        runs = simulated(Simulator(file, threads=threads), scripts, samples)
        found.append(np.concatenate([outputs["logits"] for _, _, outputs in runs]))
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_a_picture_of_another_size_is_refused_even_where_it_would_fit_the_alignment(files: dict[str, Path]) -> None:
    text = SCRIPT.read_text(encoding="utf-8").replace(
        "INPUT_HEIGHT, INPUT_WIDTH = 64, 64", "INPUT_HEIGHT, INPUT_WIDTH = 65, 90"
    )
    script = scratch() / "wrong.py"
    script.write_text(text, encoding="utf-8")
    for kind in ("fixed", "img"):
        with pytest.raises(UserError, match=r"returned shape \[1, 65, 90, 3\], the model needs \[1, 64, 64, 3\]"):
            list(simulated(Simulator(files[kind]), [Preprocessor(script)], [(TEST / "digit_000.png",)]))
