"""Random networks with random inputs and outputs through every stage: what is fed in any format gives the same bits
from the numpy reference, the fixed engine and the commands of images, and nearly what onnxruntime makes of the source.

usage: python tests/random_ports.py FIRST LAST

A case is made by its seed alone. The exit code is 1 when anything was found.
"""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Scripts"), str(ROOT / "tests")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from onnx import ModelProto, TensorProto  # noqa: E402

from byte_machine import execute  # noqa: E402
from closeness import cosine  # noqa: E402
from onnx_snippets import Net  # noqa: E402
from random_graphs import NEED  # noqa: E402
from raw_chain import Chain, ini  # noqa: E402
from sgs.config.chips import all_chips  # noqa: E402
from sgs.config.formats import CHANNELS, INPUT_FORMATS, NV12, RAW_TYPES  # noqa: E402
from sgs.config.input_config import InputSpec  # noqa: E402
from sgs.data.board import to_board  # noqa: E402
from sgs.engine import FixedEngine, run_reference  # noqa: E402
from sgs.errors import UserError  # noqa: E402
from sgs.img import OfflineEngine, image_bytes, parse_image  # noqa: E402
from sgs.img.frames import stack  # noqa: E402
from sgs.numeric.nv12 import read_nv12  # noqa: E402
from sgs.numeric.quantise import Array, dequantise, quantise  # noqa: E402
from sgs.numeric.types import DType  # noqa: E402
from sgs.pipelines import compile_fixed  # noqa: E402
from sgs.quant.export import exported, json_text  # noqa: E402
from sgs.quant.parameters import QuantParameter, parse_parameters  # noqa: E402
from sgs.registry import QUANTISE  # noqa: E402
from sgs.sim import sim_bytes  # noqa: E402

F32, S16, U16, U8 = (f"RAWDATA_{name}_NHWC" for name in ("F32", "S16", "U16", "U8"))
INPUT_KEYS = ("training_input_formats", "input_formats", "quantizations", "input_layouts", "input_width_alignment",
              "input_height_alignment")  # fmt: skip
OUTPUT_KEYS = ("output_formats", "dequantizations", "output_layouts")
MEANS: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = (
    ((0, 0, 0), (1, 1, 1)), ((112, 112, 112), (64, 64, 64)), ((255, 255, 255), (3, 3, 3)),
    ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)), ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)),
    ((-20, -20, -20), (30, 30, 30)), ((300, 300, 300), (255, 255, 255)),
)  # fmt: skip
SIZES = ((1, 1), (1, 9), (7, 1), (2, 2), (13, 11), (17, 23), (24, 20), (31, 37), (16, 16), (150, 97))
KINDS = (("picture",), ("picture",), ("raw",), ("picture", "raw"), ("picture", "picture"), ("raw", "raw"),
         ("picture", "raw", "raw"), ("picture", "regions"))  # fmt: skip
LARGEST = 8000  # elements of a tensor
TRIES = 20  # for a reader
FRAMES = 4  # to calibrate on
LEAST = 0.999  # cosine of real outputs with the source
ONNX_TYPES = {"real": TensorProto.FLOAT, "whole": TensorProto.INT64, "index": TensorProto.INT64,
              "truth": TensorProto.BOOL}  # fmt: skip
NUMPY_TYPES: dict[str, Any] = {"real": np.float32, "whole": np.int64, "index": np.int64, "truth": np.bool_}
Choice = TypeVar("Choice")
Shape = tuple[int, ...]
Feeds = Mapping[str, Array]


class Unsuitable(Exception):
    """What was drawn cannot be built."""


# -- inputs ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Value:
    """A tensor of the source network, rank 4 as [N,C,H,W]. `kind`: real, whole, truth, or index (a whole one that only
    picks); of whole ones the least and the largest, as far as the network alone tells."""

    name: str
    shape: Shape
    kind: str = "real"
    span: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Input:
    """An input of the network and its values in the ini; `make` draws what a script returns with norm=False, in the
    layout of the ini. `mean` and `std` are in the order R, G, B, of grey pictures one value, of raw data none."""

    value: Value
    keys: dict[str, str]
    make: Callable[[np.random.Generator], Array]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def fed(self) -> str:
        return self.keys["input_formats"]

    @property
    def told(self) -> str:
        """What says how good its codes are."""
        if self.fed == NV12:
            return f"{NV12} grey" if len(self.mean) == 1 else f"{NV12} colour"
        return self.fed if self.mean else f"{self.fed} {self.keys['quantizations']}"

    @property
    def normal(self) -> tuple[list[float], list[float], str]:
        """Mean and std of a picture in the order of training, and its layout."""
        order = CHANNELS[self.keys["training_input_formats"]]
        mean, std = ([values[index] for index in order] for values in (self.mean, self.std))
        return mean, std, self.keys["input_layouts"]

    @property
    def script(self) -> str:
        """The preprocess script: what is stored, pictures normalised, codes as a type that holds them."""
        body = "x"
        if self.mean:
            body = f"normalise(x, *{self.normal}) if norm else x"
        elif self.value.kind == "real" and self.fed == S16:
            body = "x if norm else np.asarray(np.rint(x).clip(-32768, 32767), np.int16)"
        return f"{SCRIPT}\ndef image_preprocess(path, norm=True):\n    x = np.load(path)\n    return {body}\n"


def normalise(x: Array, mean: Sequence[float], std: Sequence[float], layout: str) -> Array:
    """(x - mean) / std by channels, float32. Scripts have it as it stands here."""
    x = x if layout == "NHWC" else x.transpose(0, 2, 3, 1)
    x = ((x - np.array(mean)) / np.array(std)).astype(np.float32)
    return x if layout == "NHWC" else x.transpose(0, 3, 1, 2)


SCRIPT = f"from __future__ import annotations\n\nimport numpy as np\n\n{inspect.getsource(normalise)}"


def smooth(rng: np.random.Generator, shape: Shape) -> Array:
    """Pictures [N,H,W,C] of colours that change slowly, some with noise."""
    frames, high, wide, channels = shape
    images = []
    for _ in range(frames):
        small = rng.integers(0, 256, (3, 3, channels)).astype(np.float32)
        image = cv2.resize(small, (wide, high), interpolation=cv2.INTER_LINEAR).reshape(high, wide, channels)
        images.append((image + rng.normal(0, rng.choice([0, 0, 8]), image.shape)).clip(0, 255).round().astype(np.uint8))
    return np.stack(images)


# -- networks ----------------------------------------------------------------------------------------------------------
class RandomPorts:
    """A network that grows by random operators on random results, and its ini."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = Net(seed)
        self.inputs: list[Input] = []
        self.outputs: list[tuple[Value, dict[str, str]]] = []
        self._values: list[Value] = []  # what operators may read
        self._conv = self.one_of(["", "", "", "ALL_UINT8", "ALL_INT16", "CONV2D_INT16", "DEPTHWISE_INT16"])
        for index, kind in enumerate(self.one_of(KINDS)):
            {"picture": self._picture, "raw": self._raw, "regions": self._regions}[kind](f"x{index}")
        for item in list(self.inputs):
            if item.value in self._values:
                self._grow(item.value, bool(item.mean) and self.chance(0.5))
        for _ in range(self.number(0, 5)):
            self._grow(None)
        while not self._made():
            self._grow(None)
        self._choose_outputs()

    # -- chance --------------------------------------------------------------------------------------------------------
    def number(self, low: int, high: int) -> int:
        """Both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def one_of(self, choices: Sequence[Choice]) -> Choice:
        if not choices:
            raise Unsuitable
        return choices[self.number(0, len(choices) - 1)]

    # -- inputs --------------------------------------------------------------------------------------------------------
    def _add_input(self, value: Value, row: Sequence[str], make: Any, *normal: tuple[float, ...]) -> None:
        self.net.input(value.name, *value.shape, dtype=ONNX_TYPES[value.kind])
        self.inputs.append(Input(value, dict(zip(INPUT_KEYS, row, strict=True)), make, *normal))
        self._values.append(value)

    def _picture(self, name: str) -> None:
        twin = self.inputs[-1].value.shape if self.inputs and self.chance(0.5) else None  # which it can be added to
        training = self.one_of(["GRAY"] if twin and twin[1] == 1 else ["RGB", "BGR"] if twin else list(CHANNELS))
        fed = self.one_of([form for form, row in INPUT_FORMATS.items() if training in row.trained_as])
        layout = self.one_of(INPUT_FORMATS[fed].layouts)
        drawn = 1 if self.chance(0.8) else 2, len(CHANNELS[training]), *self.one_of(SIZES)
        frames, channels, high, wide = twin or drawn
        alignment = self._alignment(InputSpec(name, training, fed, layout=layout), (1, high, wide, channels))

        def make(rng: np.random.Generator) -> Array:
            pixels = smooth(rng, (frames, high, wide, channels))
            return pixels if layout == "NHWC" else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))

        mean, std = (values[:channels] for values in self.one_of(MEANS))
        value = Value(name, (frames, channels, high, wide))
        self._add_input(value, [training, fed, "TRUE", layout, *map(str, alignment)], make, mean, std)

    def _alignment(self, spec: InputSpec, shape: Shape) -> tuple[int, ...]:
        """Of width and height, perhaps larger than the picture; a legal one for a picture [N,H,W,C]."""
        row = INPUT_FORMATS[spec.input_format]
        while True:
            drawn = [self.one_of([1, 2, 3, 4, 8, 10, 16, 48, 64]) if self.chance(0.7) else 1 for _ in range(2)]
            rows = zip(drawn, row.alignment, row.aligned, strict=True)
            width, height = (-(-value // least) * least if free else least for value, least, free in rows)
            try:
                replace(spec, layout="NHWC", width_alignment=width, height_alignment=height).fed_shape(shape)
            except ValueError:
                continue
            return width, height

    def _raw(self, name: str) -> None:
        shape = self.one_of([(), (5,), (2, 7), (3, 4, 5), (1, 3, 9, 6), (2, 4, 5, 7), (1, 2, 1, 1), (1, 1, 7, 3)])
        kind = self.one_of(["real", "real", "whole", "truth"])
        fed = self.one_of([F32, S16, U8] if kind == "real" else [S16, U8] if kind == "truth" else [S16, U16, U8])
        kind = "index" if fed == U16 else kind
        # numbers that go straight into a table are not turned
        layout = self.one_of(["NHWC", "NCHW"]) if len(shape) == 4 and kind != "index" else "NHWC"
        layout = "NCHW" if len(shape) == 4 and kind == "index" else layout
        held = tuple(shape[axis] for axis in (0, 2, 3, 1)) if len(shape) == 4 and layout == "NHWC" else shape
        quantize = "TRUE" if kind != "real" or self.chance(0.6) else "FALSE"
        most = self.one_of([1, 5, 255] if fed == U8 else [5, 300])
        scale, offset = self.one_of([0.01, 1.0, 30.0]), self.one_of([0.0, 0.0, 1.5, -3.0])

        def make(rng: np.random.Generator) -> Array:
            if kind != "real" or fed == U8:
                return rng.integers(0, (1 if kind == "truth" else most) + 1, held).astype(RAW_TYPES[fed].numpy)
            return np.asarray(scale * (rng.normal(0, 1, held) + offset), np.float32)

        self._add_input(Value(name, shape, kind, (0, most)), [fed, fed, quantize, layout, "1", "1"], make)

    def _regions(self, name: str) -> None:
        """Of the picture before: number, left, top, right, bottom; some far outside, reversed or empty."""
        picture, count = self.inputs[-1].value, self.number(3, 12)
        fed, quantize = self.one_of([(F32, "TRUE"), (F32, "FALSE"), (S16, "TRUE")])
        frames, _, high, wide = picture.shape

        def make(rng: np.random.Generator) -> Array:
            corners = rng.uniform(-0.3, 1.4, (count, 4)) * [wide, high, wide, high]
            corners[: count // 2] = np.sort(corners[: count // 2].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
            corners[count - 1] = 0
            return np.concatenate([rng.integers(0, frames, (count, 1)), corners], 1).astype(np.float32)

        self._add_input(Value(name, (count, 5)), [fed, fed, quantize, "NHWC", "1", "1"], make)
        self._values.pop()
        x = picture
        with suppress(Unsuitable):
            x = picture if self.chance(0.4) else self.convolution(picture)
        size, share, net = [self.number(1, 3), self.number(1, 3)], x.shape[2] / high, self.net
        if self.chance(0.5) or frames > 1:
            made = net("MaxRoiPool", x.name, name, pooled_shape=size, spatial_scale=share)
        else:
            numbers = net("Cast", net("Gather", name, np.array(0), axis=1), to=TensorProto.INT64)
            corners = net("Slice", name, np.array([1]), np.array([5]), np.array([1]))
            form = self.one_of(["half_pixel", "output_half_pixel"])
            attrs: dict[str, Any] = {"output_height": size[0], "output_width": size[1], "spatial_scale": share}
            attrs |= {"coordinate_transformation_mode": form, "sampling_ratio": self.number(1, 2)}
            made = net("RoiAlign", x.name, corners, numbers, **attrs)
        self._keep(Value(made, (count, x.shape[1], *size)))

    # -- growth --------------------------------------------------------------------------------------------------------
    def _keep(self, value: Value) -> None:
        if not 0 < np.prod(value.shape, initial=1) <= LARGEST:
            raise Unsuitable
        self._values.append(value)

    def _grow(self, first: Value | None, convolved: bool = False) -> None:
        """One to three readers of a value, perhaps nothing but convolutions, or one of any value."""
        for _ in range(1 if first is None else self.number(1, 3)):
            for _ in range(TRIES):
                x = first or self.one_of(self._values)
                before = len(self.net.nodes), len(self.net.initializers), len(self._values)
                try:
                    made = (RandomPorts.convolution if convolved else self.one_of(OPERATORS[x.kind]))(self, x)
                    for value in made if isinstance(made, list) else [made]:
                        self._keep(value)
                    break
                except Unsuitable:
                    del self.net.nodes[before[0] :], self.net.initializers[before[1] :], self._values[before[2] :]

    def _axis(self, x: Value) -> int:
        return self.one_of(range(len(x.shape)))

    @staticmethod
    def _picture_of(x: Value) -> Shape:
        if len(x.shape) != 4:
            raise Unsuitable
        return x.shape

    # -- real numbers --------------------------------------------------------------------------------------------------
    def convolution(self, x: Value) -> Value:
        """Plain, grouped, depthwise, strided, padded on any side, dilated."""
        frames, channels, high, wide = self._picture_of(x)
        groups = self.one_of([1, 1, 1, channels, *(g for g in (2, 3) if channels % g == 0)])
        made, kernel = groups * self.number(1, 4 if groups > 1 else 8), (self.number(1, 3), self.number(1, 3))
        strides, dilations = [self.number(1, 2), self.number(1, 2)], [1, 1] if self.chance(0.8) else [2, 1]
        pads = [self.number(0, kernel[side % 2] - 1) for side in range(4)]
        extents = []
        for side, extent in enumerate((high, wide)):
            room = extent + pads[side] + pads[side + 2] - (kernel[side] - 1) * dilations[side] - 1
            if room < 0:
                raise Unsuitable
            extents.append(room // strides[side] + 1)
        operands = [self.net.weights(made, channels // groups, *kernel)]
        operands += [self.net.weights(made)] if self.chance(0.7) else []
        attrs = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups}
        result = self.net("Conv", x.name, *operands, **attrs)
        return Value(self.net("Relu", result) if self.chance(0.4) else result, (frames, made, *extents))

    def transposed(self, x: Value) -> Value:
        frames, channels, high, wide = self._picture_of(x)
        made, stride = self.number(1, 4), self.number(1, 2)
        operands = self.net.weights(channels, made, 2, 2), self.net.weights(made)
        result = self.net("ConvTranspose", x.name, *operands, strides=[stride, stride])
        return Value(result, (frames, made, (high - 1) * stride + 2, (wide - 1) * stride + 2))

    def connected(self, x: Value) -> Value:
        """Fully connected, of what a row has or all of a frame."""
        if len(x.shape) < 2:
            raise Unsuitable
        made = self.number(1, 9)
        if len(x.shape) > 2 and self.chance(0.5):
            weight = self.net.constant(self.rng.normal(0, x.shape[-1] ** -0.5, (x.shape[-1], made)), np.float32)
            return Value(self.net("MatMul", x.name, weight), (*x.shape[:-1], made))
        operands = self.net.weights(made, int(np.prod(x.shape[1:]))), self.net.weights(made)
        return Value(self.net("Gemm", self.net("Flatten", x.name), *operands, transB=1), (x.shape[0], made))

    def pooling(self, x: Value) -> Value:
        frames, channels, high, wide = self._picture_of(x)
        if self.chance(0.3):
            return Value(self.net("GlobalAveragePool", x.name), (frames, channels, 1, 1))
        kernel, stride = [min(self.number(1, 3), high), min(self.number(1, 2), wide)], self.number(1, 2)
        op = self.one_of(["MaxPool", "AveragePool"])
        made = self.net(op, x.name, kernel_shape=kernel, strides=[stride, stride])
        return Value(made, (frames, channels, (high - kernel[0]) // stride + 1, (wide - kernel[1]) // stride + 1))

    def resizing(self, x: Value) -> Value:
        frames, channels, high, wide = self._picture_of(x)
        form: dict[str, Any] = self.one_of([
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        ])  # fmt: skip
        made = self.net("Resize", x.name, "", np.array([1, 1, 2, 2], np.float32), **form)
        return Value(made, (frames, channels, 2 * high, 2 * wide))

    def function(self, x: Value) -> Value:
        return replace(x, name=self.net(self.one_of(["Relu", "Sigmoid", "Tanh", "Abs", "LeakyRelu"]), x.name))

    def with_constant(self, x: Value) -> Value:
        op = self.one_of(["Add", "Mul", "Sub", "Max", "Min"])
        return replace(x, name=self.net(op, x.name, np.float32(self.rng.normal(0, 1))))

    def combining(self, x: Value) -> Value:
        """With a value of its shape, perhaps itself."""
        other = self.one_of([v for v in self._values if v.kind == x.kind and v.shape == x.shape])
        return replace(x, name=self.net(self.one_of(["Add", "Mul", "Sub"]), x.name, other.name))

    def reduction(self, x: Value) -> Value:
        axis = self._axis(x)
        made = self.net(self.one_of(["ReduceMean", "ReduceMax"]), x.name, axes=[axis], keepdims=1)
        return replace(x, name=made, shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]))

    def shares(self, x: Value) -> Value:
        return replace(x, name=self.net("Softmax", x.name, axis=max(self._axis(x), len(x.shape) - 1)))

    def best(self, x: Value) -> Value:
        axis = self._axis(x)
        made = self.net(self.one_of(["ArgMax", "ArgMin"]), x.name, axis=axis, keepdims=1)
        return Value(made, (*x.shape[:axis], 1, *x.shape[axis + 1 :]), "whole", (0, x.shape[axis] - 1))

    def top(self, x: Value) -> list[Value]:
        last = x.shape[max(self._axis(x), len(x.shape) - 1)]
        count = self.number(1, min(last, 4))
        values, places = self.net("TopK", x.name, np.array([count]), outputs=2, axis=len(x.shape) - 1)
        shape = (*x.shape[:-1], count)
        return [Value(values, shape), Value(places, shape, "whole", (0, last - 1))]

    def whole(self, x: Value) -> Value:
        """Perhaps more than UINT8 and INT16 hold."""
        scaled = self.net("Mul", x.name, np.float32(self.one_of([1, 50, 20000])))
        made = self.net("Cast", scaled, result=f"cut{len(self.net.nodes)}", to=TensorProto.INT64)
        return Value(made, x.shape, "whole", (-(2**31), 2**31 - 1))

    def comparison(self, x: Value) -> Value:
        op = self.one_of(["Greater", "Less"])
        return Value(self.net(op, x.name, np.float32(self.rng.normal(0, 0.5))), x.shape, "truth")

    # -- of any kind ---------------------------------------------------------------------------------------------------
    def joining(self, x: Value) -> Value:
        axis = self._axis(x)

        def rest(shape: Shape) -> Shape:
            return shape[:axis] + shape[axis + 1 :]

        kin = [v for v in self._values if v.kind == x.kind and len(v.shape) == len(x.shape)]
        other = self.one_of([v for v in kin if rest(v.shape) == rest(x.shape)])
        pair = [x, other] if self.chance(0.5) else [other, x]
        shape = (*x.shape[:axis], x.shape[axis] + other.shape[axis], *x.shape[axis + 1 :])
        span = min(x.span[0], other.span[0]), max(x.span[1], other.span[1])
        return Value(self.net("Concat", *(v.name for v in pair), axis=axis), shape, x.kind, span)

    def slicing(self, x: Value) -> Value:
        axis = self._axis(x)
        begin = self.number(0, x.shape[axis] - 1)
        end = self.number(begin + 1, x.shape[axis])
        made = self.net("Slice", x.name, np.array([begin]), np.array([end]), np.array([axis]))
        return replace(x, name=made, shape=(*x.shape[:axis], end - begin, *x.shape[axis + 1 :]))

    def padding(self, x: Value) -> Value:
        """With a constant, of whole numbers one that may be beyond them."""
        axis, more = self._axis(x), self.number(1, 2)
        pads = [0] * len(x.shape)
        pads[axis] = more
        value = self.one_of([0, 0, -1] if x.kind == "real" else [0, -3, 7, 400])
        fill = self.net.constant(np.array(value), NUMPY_TYPES[x.kind])
        made = self.net("Pad", x.name, np.array([0] * len(x.shape) + pads), fill)
        shape = (*x.shape[:axis], x.shape[axis] + more, *x.shape[axis + 1 :])
        return replace(x, name=made, shape=shape, span=(min(x.span[0], value), max(x.span[1], value)))

    def flattening(self, x: Value) -> Value:
        made = self.net("Reshape", x.name, np.array([-1]))
        return replace(x, name=made, shape=(int(np.prod(x.shape, initial=1)),))

    def turning(self, x: Value) -> Value:
        perm = [int(axis) for axis in self.rng.permutation(len(x.shape))]
        if len(perm) < 2:
            raise Unsuitable
        return replace(x, name=self.net("Transpose", x.name, perm=perm), shape=tuple(x.shape[axis] for axis in perm))

    # -- whole numbers and truth values --------------------------------------------------------------------------------
    def counted(self, x: Value) -> Value:
        ops: dict[str, Callable[[int, int], int]]
        ops = {"Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Max": max, "Min": min}
        op, value = self.one_of(list(ops)[2 if x.span[1] >= 2**30 else 0 :]), self.number(-4, 300)
        span = ops[op](x.span[0], value), ops[op](x.span[1], value)
        return replace(x, name=self.net(op, x.name, np.array(value)), span=span)

    def real(self, x: Value) -> Value:
        made = self.net("Cast", x.name, to=TensorProto.FLOAT)
        return Value(self.net("Mul", made, np.float32(0.01)) if self.chance(0.7) else made, x.shape)

    def looked_up(self, x: Value) -> Value:
        """Rows of a table, or numbers."""
        if x.span[0] < 0 or x.span[1] > 700:
            raise Unsuitable
        rows = x.span[1] + 1
        if self.chance(0.7):
            table = self.net.constant(self.rng.normal(0, 1, (rows, 3)), np.float32)
            return Value(self.net("Gather", table, x.name, axis=0), (*x.shape, 3))
        numbers = self.rng.integers(0, self.one_of([10, 256, 3000]), rows)
        span = int(numbers.min()), int(numbers.max())
        return Value(self.net("Gather", numbers, x.name, axis=0), x.shape, "whole", span)

    def choosing(self, x: Value) -> Value:
        """Between a real tensor and a number, or two numbers."""
        found = [v.name for v in self._values if v.kind == "real" and v.shape == x.shape]
        first = self.one_of([np.float32(1.5), *found])
        return Value(self.net("Where", x.name, first, np.float32(-0.5)), x.shape)

    def negation(self, x: Value) -> Value:
        return replace(x, name=self.net("Not", x.name))

    # -- outputs -------------------------------------------------------------------------------------------------------
    def _choose_outputs(self) -> None:
        """Most of what nobody reads, some of what is read as well, now and then one twice, or an input as it is."""
        fed = [item.value for item in self.inputs if item.value.kind != "index"]
        read = {name for node in self.net.nodes for name in node.input}
        made = self._made()
        chosen = [v for v in made if self.chance(0.2 if v.name in read else 0.85)] or made[-1:]
        for value in [*chosen, *fed]:
            if self.chance(0.12):
                chosen.append(replace(value, name=self.net("Identity", value.name)))
        for value in [chosen[index] for index in self.rng.permutation(len(chosen))][:6]:
            form = self.one_of([F32, S16, U8] if value.kind == "real" else self._held(value))
            real = "TRUE" if form == F32 or self.chance(0.5) else "FALSE"
            layout = self.one_of(["NHWC", "NCHW"]) if len(value.shape) == 4 else "NHWC"
            self.outputs.append((value, dict(zip(OUTPUT_KEYS, (form, real, layout), strict=True))))

    def _made(self) -> list[Value]:
        """What is not fed."""
        fed = [item.value for item in self.inputs]
        return [value for value in self._values if value not in fed]

    @staticmethod
    def _held(value: Value) -> list[str]:
        """Formats for whole numbers: those that hold them, or all where nobody can know that they do not."""
        unknown = value.kind == "truth" or value.span[1] >= 2**30
        ends = {S16: (-32768, 32767), U8: (0, 255)}
        fits = [form for form, (low, high) in ends.items() if low <= value.span[0] and value.span[1] <= high]
        return [F32, *(ends if unknown else fits)]

    # -- what tests want to know ---------------------------------------------------------------------------------------
    def formats(self, output: str) -> set[str]:
        """What is fed to the inputs that an output is computed from."""
        needed = {output}
        for node in reversed(self.net.nodes):
            if not needed.isdisjoint(node.output):
                needed.update(node.input)
        return {item.told for item in self.inputs if item.value.name in needed}

    @property
    def jumping(self) -> set[str]:
        """What a small error may change altogether: all that follows from a decision between real numbers."""
        found: set[str] = set()
        for node in self.net.nodes:
            if node.op_type in DECIDING or node.output[0].startswith("cut") or not found.isdisjoint(node.input):
                found.update(node.output)
        return found

    def model(self) -> ModelProto:
        return self.net.model(*(value.name for value, _ in self.outputs))

    def text(self) -> str:
        """The input_config.ini."""
        text = ini({i.value.name: i.keys for i in self.inputs}, {v.name: keys for v, keys in self.outputs})
        for key in ("std", "mean"):
            rows = [":".join(f"{number:g}" for number in getattr(item, key)) for item in self.inputs if item.mean]
            line = f"{key}{'_value' if key == 'std' else ''}={','.join(rows)};\n"
            text = text.replace("[OUTPUT_CONFIG]", line + "[OUTPUT_CONFIG]") if rows else text
        return text + (f"[CONV_CONFIG]\ninput_format={self._conv};\n" if self._conv else "")


DECIDING = ("ArgMax", "ArgMin", "TopK", "Greater", "Less", "MaxRoiPool")
OPERATORS: dict[str, list[Callable[[RandomPorts, Value], Value | list[Value]]]] = {
    "real": [
        *[RandomPorts.convolution] * 6, RandomPorts.transposed, *[RandomPorts.connected] * 2,
        *[RandomPorts.pooling] * 2, RandomPorts.resizing, *[RandomPorts.function] * 2, RandomPorts.with_constant,
        *[RandomPorts.combining] * 2, *[RandomPorts.joining] * 2, RandomPorts.slicing, RandomPorts.padding,
        RandomPorts.reduction, RandomPorts.flattening, RandomPorts.turning, RandomPorts.shares, RandomPorts.best,
        RandomPorts.top, RandomPorts.whole, RandomPorts.comparison,
    ],
    "whole": [
        *[RandomPorts.counted] * 3, RandomPorts.real, *[RandomPorts.looked_up] * 3, RandomPorts.padding,
        RandomPorts.slicing, RandomPorts.joining, RandomPorts.flattening, RandomPorts.turning,
    ],
    "index": [RandomPorts.looked_up],
    "truth": [RandomPorts.real, *[RandomPorts.choosing] * 2, RandomPorts.negation, RandomPorts.slicing],
}  # fmt: skip


# -- what boards are fed -----------------------------------------------------------------------------------------------
def with_noise(spec: InputSpec, board: Array, shape: Shape, rng: np.random.Generator) -> Array:
    """The bytes of a picture of a shape, in the ini's layout, with noise wherever nobody may look: alpha, and what
    alignment adds."""
    planar = spec.layout == "NCHW"
    high, wide = shape[2:4] if planar else shape[1:3]
    seen = np.zeros(board.shape, bool)
    if spec.input_format == NV12:
        rows = board.shape[1] * 2 // 3
        seen[:, :high, :wide] = True
        if spec.channels > 1:
            seen[:, rows : rows + -(-high // 2), : 2 * -(-wide // 2)] = True
    elif planar:
        seen[:, :, :high, :wide] = True
    else:
        seen[:, :high, :wide, : spec.channels] = True
    return np.where(seen, board, rng.integers(0, 256, board.shape).astype(np.uint8))


def pixels_of_nv12(spec: InputSpec, board: Array, shape: Shape) -> Array:
    """What NV12 holds of a coloured picture of a shape, in the ini's layout."""
    planar, rows = spec.layout == "NCHW", board.shape[1] * 2 // 3
    frames, high, wide = (shape[0], *shape[2:4]) if planar else shape[:3]
    pixels = np.empty((frames, high, wide, 3), np.uint8)
    for planes, out in zip(board[..., 0], pixels, strict=True):
        read_nv12(planes[:rows], planes[rows:], CHANNELS[spec.training_format], out)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if planar else pixels


# -- through the stages ------------------------------------------------------------------------------------------------
@dataclass
class Case:
    """The network of a seed on its way through the stages, in a folder. `findings`: what went wrong; `cosines`: how
    near real outputs came to the source, by what was fed and returned."""

    seed: int
    folder: Path
    findings: list[str] = field(default_factory=list)
    cosines: list[tuple[str, float]] = field(default_factory=list)

    def run(self) -> Case:
        """Everything. Refusals and crashes are findings."""
        self.ports, self.rng = RandomPorts(self.seed), np.random.default_rng([self.seed, 1])
        try:
            self._run()
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.findings.append(f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
        return self

    def _run(self) -> None:
        self.chain = self._chain(self.folder, self.ports.model())
        samples = [{i.value.name: i.make(self.rng) for i in self.ports.inputs} for _ in range(FRAMES)]
        self.scripts = [item.script for item in self.ports.inputs]
        forced = self._forced() if self.rng.random() < 0.25 else ()
        level = ("L1", "L2", "L2", "L3", "L5")[int(self.rng.integers(5))]
        self.chain.calibrated(samples, level, self.scripts, forced)
        self.graph = self.chain.fixed_graph
        if self.rng.random() < 0.4:
            self._imported(samples[2:])
        boards = [self._fed(sample, noise=True) for sample in samples] + [self._extreme()]
        results = [self._exact(board) for board in boards]
        if not forced:
            self._judge(samples, boards[:FRAMES], results[:FRAMES])
        clean = FixedEngine(self.graph, threads=1).run(self._fed(samples[1], noise=False))
        self._same("without noise", clean, results[1])
        self._images(boards, results)

    def _chain(self, folder: Path, model: ModelProto) -> Chain:
        """Rank-4 inputs and outputs are NCHW in the source, whatever Transposes are there."""
        values = [*(item.value for item in self.ports.inputs), *(value for value, _ in self.ports.outputs)]
        return Chain(folder, model, self.ports.text(), {v.name: "NCHW" for v in values if len(v.shape) == 4})

    def _same(self, what: str, found: Feeds, wanted: Feeds) -> None:
        for name, values in wanted.items():
            mine = found[name]
            if (mine.dtype, mine.shape) != (values.dtype, values.shape):
                told = f"{mine.dtype} {mine.shape}, not {values.dtype} {values.shape}"
                self.findings.append(f"{what}: '{name}' is {told}")
            elif not np.array_equal(mine, values):
                self.findings.append(f"{what}: '{name}' differs in {(mine != values).sum()} of {mine.size} values")

    # -- imported parameters -------------------------------------------------------------------------------------------
    def _forced(self) -> tuple[QuantParameter, ...]:
        """Ranges of inputs and outputs that have nothing to do with the samples, and precisions of sums of products."""
        graph, entries = self.chain.float_graph, []
        for node in graph.nodes:
            if node.op in QUANTISE and QUANTISE[node.op].kind == "mac" and self.rng.random() < 0.6:
                bit = int(self.rng.choice([4, 8, 16]))
                entries.append({"name": f"{node.outputs[0]}/weight", "min": [-1.0], "max": [1.0], "bit": bit})
        for name in [*graph.inputs, *graph.outputs]:
            if graph[name].dtype.is_float and self.rng.random() < 0.6:
                low, high = sorted(self.rng.normal(0, self.rng.choice([0.01, 1, 100]), 2).tolist())
                entries.append({"name": name, "min": [low], "max": [high], "bit": int(self.rng.choice([8, 16]))})
        return parse_parameters(entries) if entries else ()

    def _imported(self, samples: Sequence[Feeds]) -> None:
        """What is exported of the fixed graph makes the same graph again, whatever the samples."""
        entries = exported(self.graph)
        if not entries:
            return
        again = self._chain(self.folder / "again", self.chain.model)
        try:
            again.calibrated(samples, "L1", self.scripts, parse_parameters(json.loads(json_text(entries))))
        except UserError as error:
            self.findings.append(f"imported: {error}")
            return
        graphs = [self.graph.copy(), again.fixed_graph.copy()]
        for graph in graphs:
            graph.metadata = {}
        if sim_bytes(graphs[0], "fixed") != sim_bytes(graphs[1], "fixed"):
            self.findings.append("imported: another graph")

    # -- feeds ---------------------------------------------------------------------------------------------------------
    def _fed(self, sample: Feeds, *, noise: bool) -> dict[str, Array]:
        """What fixed and offline models are fed."""
        fed = {}
        for item, spec in zip(self.ports.inputs, self.chain.config.inputs, strict=True):
            values, tensor = sample[spec.name], self.graph[spec.name]
            if spec.is_picture:
                board = to_board(spec, values)
                values = with_noise(spec, board, values.shape, self.rng) if noise else board
            elif item.value.kind == "real" and tensor.dtype is DType.INT16:
                assert tensor.quant is not None
                values = quantise(values, tensor.quant, tensor.dtype)
            fed[spec.name] = np.asarray(values, tensor.dtype.numpy)
        return fed

    def _extreme(self) -> dict[str, Array]:
        """Codes and bytes of any value, real numbers far beyond what was seen; whole numbers as they are meant."""
        feeds = self._fed({i.value.name: i.make(self.rng) for i in self.ports.inputs}, noise=True)
        for item in self.ports.inputs:
            values = feeds[item.value.name]
            if item.value.kind != "real":
                continue
            if values.dtype.kind == "f":
                feeds[item.value.name] = np.asarray(values * 100, values.dtype)
                continue
            low, high = limits(values.dtype)
            ends = np.where(self.rng.random(values.shape) < 0.5, low, high)
            wild = self.rng.integers(low, high + 1, values.shape)
            chosen = np.where(self.rng.random(values.shape) < 0.5, ends, wild)
            feeds[item.value.name] = np.asarray(chosen, values.dtype)
        return feeds

    # -- verdicts ------------------------------------------------------------------------------------------------------
    def _exact(self, feeds: Feeds) -> dict[str, Array]:
        """What the engine returns, the same as the reference."""
        truth = run_reference(self.graph, feeds)
        wanted = {name: truth[name] for name in self.graph.outputs}
        for threads in (1, 2):
            self._same(f"engine, {threads} threads", FixedEngine(self.graph, threads=threads).run(feeds), wanted)
        return wanted

    def _truth(self, sample: Feeds, board: Feeds | None = None) -> dict[str, Array]:
        """What the source makes of a sample, in the layouts of the ini; of the pixels that a board holds as NV12."""
        feeds = {}
        for item, spec in zip(self.ports.inputs, self.chain.config.inputs, strict=True):
            values = sample[spec.name]
            if board is not None and spec.input_format == NV12 and spec.channels > 1:
                values = pixels_of_nv12(spec, board[spec.name], values.shape)
            if spec.is_picture:
                values = normalise(values, *item.normal)
            if values.ndim == 4 and spec.layout == "NHWC":
                values = values.transpose(0, 3, 1, 2)
            feeds[spec.name] = np.asarray(values, NUMPY_TYPES[item.value.kind], order="C").reshape(item.value.shape)
        found = self.chain.source(feeds)
        turned = [o.name for o in self.chain.config.outputs if o.layout == "NHWC" and found[o.name].ndim == 4]
        return found | {name: found[name].transpose(0, 2, 3, 1) for name in turned}

    def _judge(self, samples: Sequence[Feeds], boards: Sequence[Feeds], results: Sequence[Feeds]) -> None:
        """Compare what was found for the samples with the source network."""
        truth = [self._truth(sample, board) for sample, board in zip(samples, boards, strict=True)]
        apart, jumping = [self._truth(sample) for sample in samples], self.ports.jumping
        for value, keys in self.ports.outputs:
            name = value.name
            mine, wanted, other = (np.stack([run[name] for run in runs]) for runs in (results, truth, apart))
            if mine.shape != wanted.shape:
                self.findings.append(f"shape of '{name}': {mine.shape}, not {wanted.shape}")
            elif name in jumping:
                continue
            elif value.kind == "real":
                self._judge_real(name, keys["output_formats"], mine, wanted, other)
            elif not np.array_equal(mine, wanted.clip(*limits(mine.dtype)) if mine.dtype.kind in "iu" else wanted):
                self.findings.append(f"'{name}' is not what the source says")

    def _judge_real(self, name: str, form: str, mine: Array, wanted: Array, apart: Array) -> None:
        """Near in direction, or off by no more than the step of the codes that leave."""
        quant = self.graph[name].quant
        if quant is None:
            node = self.graph.producers()[name]
            quant = self.graph[node.inputs[0] or ""].quant if node.op == "DEQUANTIZE" else None
        else:
            mine = dequantise(mine, quant)
        if not wanted.any() or mine.size < 16:
            return
        near, formats = cosine(mine, wanted), self.ports.formats(name)
        step = 0.0 if quant is None else float(quant.scale[0])
        if near < LEAST and np.sqrt(np.mean(np.square(mine - wanted))) > step:
            self.findings.append(f"'{name}' has cosine {near:.5f} with the source")
        self.cosines += [(kind, near) for kind in (*sorted(formats), f"returned as {form}")]
        if f"{NV12} colour" in formats:
            self.cosines.append((f"{NV12} colour, beside pixels that never were NV12", cosine(mine, apart)))

    def _images(self, boards: Sequence[Feeds], results: Sequence[Feeds]) -> None:
        """Compiled for a chip with its SRAM and with little, for several frames."""
        rng, few = self.rng, any(tensor.dtype is DType.INT4 for tensor in self.graph.tensors.values())
        chips = [chip for chip in all_chips() if not few or "int4" in chip.number_formats]
        chip = chips[int(rng.integers(len(chips)))]
        little = max(1200, sum(tensor.nbytes for tensor in self.graph.activations()) // int(rng.integers(1, 6)))
        most, several = int(rng.integers(1, 6)), int(rng.integers(2, 5))
        for mode, batches, count, sram in (
            ("n_buf", (most,), int(rng.integers(1, most + 1)), chip.sram_bytes),
            ("one_buf", (1, several), several, chip.sram_bytes),
            ("n_buf", (1,), 1, little),
        ):
            fed = [item.told for item in self.ports.inputs]
            inplace = mode == "one_buf" and set(fed) == {f"{F32} TRUE"} and bool(rng.random() < 0.5)
            what = f"{chip.name} {mode} {batches} {sram:,} bytes" + ", in place" * inplace
            options: dict[str, Any] = {"batch_mode": mode, "batches": batches, "inplace_inputs": inplace}
            try:
                made = compile_fixed(self.graph, replace(chip, sram_bytes=sram), **options)
            except UserError as error:
                need = NEED.search(str(error))
                if need is None or int(need[1].replace(",", "")) <= sram:
                    self.findings.append(f"{what}: {error}")
                continue
            chosen = rng.permutation(len(boards))[:count]
            feeds, wanted = (
                {name: stack([rows[index][name] for index in chosen]) for name in names}
                for rows, names in ((boards, self.graph.inputs), (results, self.graph.outputs))
            )
            image = parse_image(image_bytes(made))
            for threads in (1, 2):
                self._same(f"{what}, {threads} threads", OfflineEngine(image, threads=threads).run(feeds), wanted)
            if sram == little:
                self._same(f"{what}, byte machine", execute(image, feeds), wanted)


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """What an integer type holds."""
    ends = np.iinfo(dtype)
    return int(ends.min), int(ends.max)


# -- a campaign --------------------------------------------------------------------------------------------------------
def main() -> int:
    """Check the networks of a range of seeds; 1 when something was found."""
    parser = argparse.ArgumentParser(description="Random inputs and outputs through every stage.")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, help="not included")
    options = parser.parse_args()
    logging.getLogger("sgs").setLevel(logging.ERROR)
    begin, bad = time.perf_counter(), 0
    lowest: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for seed in range(options.first, options.last):
        with tempfile.TemporaryDirectory(prefix="sgs_ports_") as folder:
            found = Case(seed, Path(folder)).run()
        if found.findings:
            bad += 1
            print(f"seed {seed}:", *dict.fromkeys(found.findings), sep="\n  ", flush=True)
        for kind, value in found.cosines:
            lowest[kind].append((value, seed))
    for kind, values in sorted(lowest.items()):
        told = ", ".join(f"{value:.5f} (seed {seed})" for value, seed in sorted(values)[:3])
        print(f"{kind}: {len(values)} outputs, lowest cosines {told}")
    seconds = time.perf_counter() - begin
    print(f"{options.last - options.first} networks, {bad} with findings; {seconds:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
