"""Reports of networks that do not exist: for tests of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from sgs.compile import compile_graph
from sgs.config.chips import load_chip
from sgs.img import Image, image_bytes
from sgs.quant.layers import Layer
from sgs.quant.traps import Finding
from sgs.report.compared import Cause, ComparedLayer, Comparison, Errors
from sgs.report.compile import CompileReport, describe_image
from sgs.report.histogram import BINS, Histogram, bin_counts
from sgs.report.layer_rows import Form
from sgs.report.report_page import CalibrationResult, PicturePair, Report
from test_compile import Fixed

HOSTILE = "</script><b>'\"& 模"  # a layer's name


def errors(decibels: float, elements: int = 600) -> Errors:
    """Of values whose mean square is 4."""
    mse = 4 * 10 ** (-decibels / 10)
    return Errors(elements, mse, mse**0.5, mse**0.5 / 2, 1 - mse / 8, decibels, 3 * mse**0.5)


def name_of(n: int) -> str:
    return f"/blocks/blocks.{n // 10}/layers/layers.{n % 10}/Conv_output_0"


def compared_layer(n: int) -> ComparedLayer:
    """Layer n: every fifth moves values, which is not measured alone, every seventh is in 16 bit."""
    wide, moves = n % 7 == 3, n % 5 == 4
    alone = None if moves else errors(25 + n * 13 % 40)
    operator = "CONCATENATION" if moves else "CONV_2D"
    return ComparedLayer(
        name_of(n), name_of(n), operator, (1, 7, 5, 16 + n % 9), 16 if wide else 8,
        None if moves else 16 if wide else 8, -1.5 - n, 2.5 + n, errors(18 + n * 7 % 30), alone,
    )  # fmt: skip


def comparison(count: int) -> Comparison:
    layers = [compared_layer(n) for n in range(count)]
    layers[1] = replace(layers[1], name=HOSTILE)
    cause = Cause(layers[1].name, "Its range is 20 times that of its values.", "Give it another range.")
    outputs = (layers[-2].name, layers[-1].name)
    told = "float .sim x_float.sim", "fixed .sim x_fixed.sim"
    return Comparison(*told, 2, tuple(layers), outputs, (), (cause,), layers[1].name)


def calibration(count: int) -> CalibrationResult:
    layers = [
        Layer(name_of(n), "CONV_2D", 8, -1.0, 2.0, "minmax", "kl", 1 / count, 30.0 + n % 9, 20.0 + n % 7, 0.01 * n)
        for n in range(count)
    ]
    finding = Finding("dead output channels", "CONV_2D 'a'", "1 of 4", "harmless", (3,))
    return CalibrationResult(tuple(layers), (finding,), (name_of(count - 1),))


def forms(names: Sequence[str]) -> dict[str, Form]:
    return {name: Form((1, 7, 5, 16), 8, 8, 2304, (name, "CONV_2D")) for name in names}


def histogram(name: str, seed: int = 0) -> Histogram:
    """A normal distribution within ±4, beside it in steps of 1/8 within ±2, the chosen range."""
    values = np.random.default_rng(seed).normal(size=3000).clip(-4, 4)
    held = np.rint(values.clip(-2, 2) * 8) / 8
    real, codes = (tuple(map(int, bin_counts(one, -4, 4))) for one in (values, held))
    assert len(real) == BINS
    return Histogram(name, -4.0, 4.0, real, codes, -2.0, 2.0)


def picture(title: str, grey: int) -> PicturePair:
    shades = (np.full((6, 8, 3), value, np.uint8) for value in (grey, grey + 9))
    first, second = (cv2.imencode(".jpg", shade)[1].tobytes() for shade in shades)
    return PicturePair(title, first, second, f"{title} is the same <in> both")


def cost(layers: int) -> tuple[Image, CompileReport]:
    """A chain of convolutions on a small chip."""
    f = Fixed()
    value = f.input("x", (1, 8, 8, 8))
    for _ in range(layers):
        value = f.conv(value, 8, 3)
    chip = load_chip("ibopper")
    image = compile_graph(f.done(value), chip)
    return image, describe_image(image, chip, len(image_bytes(image)))


def whole_report(count: int, *, chain: int = 6) -> Report:
    """A report of `count` layers with everything in it, whose cost is that of a chain of convolutions."""
    names = [name_of(n) for n in range(count)]
    return Report(
        "network <x>",
        facts=(("toolchain", "1.2"), ("level", "L5")),
        comparison=comparison(count),
        calibration=calibration(count),
        forms=forms(names),
        histograms=tuple(histogram(name, n) for n, name in enumerate(names[-100:])),
        pictures=(picture("a.png", 40), picture("b.png", 90)),
        cost=cost(chain),
        config="[INPUT_CONFIG]\ninputs=<x>;",
    )
