"""Networks of one Caffe layer each, as text with weights: CASES holds them by type of layer.

Also the writer of their weight files, so that a judge needs nothing of the frontend.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe_reference import parse

Array = NDArray[np.float32]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A network: its description, the shapes of its inputs, and weights by layer.

    Inputs are random numbers between low and high, but for those that `given` has. `transposes`: how many the optimised
    graph has, None where that does not matter.
    """

    text: str
    inputs: dict[str, Shape]
    weights: dict[str, list[Array]] = field(default_factory=dict)
    low: float = -1.0
    high: float = 1.0
    given: dict[str, Array] = field(default_factory=dict)
    transposes: int | None = None

    def feeds(self, seed: int = 7) -> dict[str, Array]:
        rng = np.random.default_rng(seed)
        drawn = {name: rng.uniform(self.low, self.high, shape) for name, shape in self.inputs.items()}
        return {name: self.given.get(name, value).astype(np.float32) for name, value in drawn.items()}


def input_layer(name: str, shape: Shape) -> str:
    dims = " ".join(f"dim: {extent}" for extent in shape)
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'


def network(layers: str, inputs: Mapping[str, Shape]) -> str:
    return "".join(input_layer(name, shape) for name, shape in inputs.items()) + layers


def one(
    kind: str,
    parameters: str = "",
    *inputs: Shape,
    weights: Sequence[Shape | Array] = (),
    tops: int = 1,
    **told: Any,
) -> Case:
    """A layer "it" of inputs x0, x1, … with results y0, y1, …; weights are arrays, or shapes of random ones."""
    rng = np.random.default_rng(zlib.crc32(f"{kind}{parameters}".encode()))
    shapes = {f"x{i}": shape for i, shape in enumerate(inputs)}
    ends = [*(f'bottom: "{name}"' for name in shapes), *(f'top: "y{i}"' for i in range(tops))]
    text = f'layer {{ name: "it" type: "{kind}" {" ".join(ends)} {parameters} }}\n'
    values = [w if isinstance(w, np.ndarray) else rng.uniform(-1, 1, w) for w in weights]
    held = {"it": [value.astype(np.float32) for value in values]} if values else {}
    return Case(network(text, shapes), shapes, held, **told)


# -- files of weights --------------------------------------------------------------------------------------------------
def _number(value: int) -> bytes:
    """A number as protobuf writes it, seven bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(content)) + content


def weight_file(text: str, weights: Mapping[str, Sequence[Array]]) -> bytes:
    """The .caffemodel of a network, which has all layers: NetParameter.layer is field 100; of a layer name 1, type 2,
    blobs 7; of a blob data 5, shape 7."""
    content = _field(1, b"net")
    for found in parse(text).all("layer"):
        name = found.get("name", "")
        layer = _field(1, name.encode()) + _field(2, found.get("type", "").encode())
        for array in weights.get(name, ()):
            shape = _field(1, b"".join(map(_number, array.shape)))
            layer += _field(7, _field(5, array.astype("<f4").tobytes()) + _field(7, shape))
        content += _field(100, layer)
    return content


# -- cases -------------------------------------------------------------------------------------------------------------
X = (2, 6, 7, 5)  # extents that differ, for layers that take any
CASES: dict[str, list[Case]] = {}


def cases(kind: str, *rows: Case) -> None:
    CASES[kind] = list(rows)


def plain(kind: str, *parameters: str, **told: Any) -> None:
    """Cases of an elementwise layer: of rank 4, and of rank 2."""
    rows = [one(kind, text, X, transposes=0, **told) for text in parameters or ("",)]
    cases(kind, *rows, one(kind, (parameters or ("",))[-1], (3, 5), **told))


def convolutions(kind: str, inputs: int, outputs: int, weights: Shape) -> list[Case]:
    """Convolutions of [1, inputs, 9, 11]; of weights only the first two extents are told."""
    rows = [
        ("kernel_size: 3", (3, 3), True),
        ("kernel_size: 3 stride: 2 pad: 1 bias_term: false", (3, 3), False),
        ("kernel_h: 2 kernel_w: 5 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2", (2, 5), True),
        ("kernel_size: 3 dilation: 2 pad: 3", (3, 3), True),
        ("kernel_size: [2, 3] stride: [1, 2] pad: [0, 1] dilation: [3, 1]", (2, 3), True),
    ]
    return [
        one(
            kind,
            f"convolution_param {{ num_output: {outputs} {text} }}",
            (1, inputs, 9, 11),
            weights=[(*weights, *kernel), (outputs,)][: 1 + bias],
            transposes=0,
        )
        for text, kernel, bias in rows
    ]


def grouped(kind: str, weights: Shape, outputs: int, group: int) -> Case:
    text = f"convolution_param {{ num_output: {outputs} kernel_size: 3 stride: 2 group: {group} pad: 1 }}"
    return one(kind, text, (2, 6, 9, 11), weights=[(*weights, 3, 3), (outputs,)], transposes=0)


def bilinear(channels: int, factor: int) -> Case:
    """Upsampling by a Deconvolution with Caffe's bilinear filler."""
    size = 2 * factor - factor % 2
    centre = (2 * factor - 1 - factor % 2) / (2.0 * factor)
    ramp = 1 - np.abs(np.arange(size) / factor - centre)
    filler = np.broadcast_to(np.outer(ramp, ramp), (channels, 1, size, size))
    text = (
        f"convolution_param {{ num_output: {channels} group: {channels} kernel_size: {size} stride: {factor} "
        f"pad: {factor // 2} bias_term: false }}"
    )
    return one("Deconvolution", text, (1, channels, 5, 7), weights=[filler], transposes=0)


cases("Convolution", *convolutions("Convolution", 6, 4, (4, 6)), grouped("Convolution", (8, 3), 8, 2))
cases(
    "ConvolutionDepthwise",
    *convolutions("ConvolutionDepthwise", 6, 6, (6, 1)),
)
cases("DepthwiseConvolution", *convolutions("DepthwiseConvolution", 6, 12, (12, 1))[:2])
cases(
    "Deconvolution",
    *convolutions("Deconvolution", 6, 4, (6, 4)),
    grouped("Deconvolution", (6, 4), 8, 2),
    grouped("Deconvolution", (6, 1), 6, 6),
    bilinear(3, 2),
    bilinear(2, 3),
)
cases(
    "Pooling",
    *(
        one("Pooling", f"pooling_param {{ pool: {pool} {text} }}", (2, 3, *extents), transposes=0)
        for pool in ("MAX", "AVE")
        for text, extents in (
            ("kernel_size: 3 stride: 2", (8, 11)),  # the last window of rows hangs over
            ("kernel_size: 3 stride: 2 pad: 1", (8, 11)),
            ("kernel_size: 2 stride: 2 pad: 1", (5, 8)),  # a last window would lie in the padding alone
            ("kernel_size: 2 stride: 3 pad: 1", (7, 9)),
            ("kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 3 pad_h: 1 pad_w: 0", (9, 11)),
            ("kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR", (8, 10)),
            ("global_pooling: true", (5, 7)),
            ("kernel_size: 2 stride: 3", (4, 8)),  # a stride past the window
            ("kernel_size: 2 stride: 3 pad_h: 0 pad_w: 1", (6, 8)),  # the pads of columns leave out a row's window
            ("kernel_size: 3 stride: 2", (2, 7)),  # a window larger than the picture
        )
    ),
)
cases(
    "InnerProduct",
    one("InnerProduct", "inner_product_param { num_output: 4 }", (2, 3, 5, 7), weights=[(4, 105), (4,)]),
    one("InnerProduct", "inner_product_param { num_output: 4 bias_term: false }", (3, 6), weights=[(4, 6)]),
    one("InnerProduct", "inner_product_param { num_output: 4 axis: 2 }", (2, 3, 5), weights=[(4, 5), (4,)]),
    one("InnerProduct", "inner_product_param { num_output: 4 axis: -1 }", (2, 3, 5), weights=[(4, 5), (4,)]),
    one("InnerProduct", "inner_product_param { num_output: 4 transpose: true }", (3, 6), weights=[(6, 4), (4,)]),
)
_WORDS = {"x0": np.array([[0, 3, 8], [7, 7, 1]], np.float32)}
cases(
    "Embed",
    *(
        one("Embed", f"embed_param {{ num_output: 5 input_dim: 9 {text} }}", (2, 3), weights=w, given=_WORDS)
        for text, w in (("", [(9, 5), (5,)]), ("bias_term: false", [(9, 5)]))
    ),
)

_POSITIVE = np.linspace(0.5, 2.0, 6)
cases(
    "BatchNorm",
    one("BatchNorm", "", X, weights=[(6,), _POSITIVE, np.array([4.0])], transposes=0),
    one("BatchNorm", "batch_norm_param { eps: 0.5 use_global_stats: true }", X, weights=[(6,), _POSITIVE, np.ones(1)]),
    one("BatchNorm", "batch_norm_param { eps: 0.25 }", (2, 6), weights=[(6,), _POSITIVE, np.zeros(1)]),
)
cases(
    "BN",
    one("BN", "bn_param { eps: 0.01 }", X, weights=[(1, 6, 1, 1), (1, 6, 1, 1), (1, 6, 1, 1), _POSITIVE], transposes=0),
    one("BN", "", X, weights=[(6,), (6,)], transposes=0),
)
cases(
    "Scale",
    one("Scale", "", X, weights=[(6,)], transposes=0),
    one("Scale", "scale_param { bias_term: true }", X, weights=[(6,), (6,)], transposes=0),
    one("Scale", "scale_param { axis: 2 num_axes: 2 bias_term: true }", X, weights=[(7, 5), (7, 5)]),
    one("Scale", "scale_param { axis: -1 }", X, weights=[(5,)]),
    one("Scale", "scale_param { num_axes: 0 bias_term: true }", X, weights=[(), ()]),
    one("Scale", "scale_param { axis: 0 }", X, X[:2], transposes=0),
    one("Scale", "scale_param { axis: 0 num_axes: -1 }", X, X, transposes=0),
)
cases(
    "Bias",
    one("Bias", "", X, weights=[(6,)], transposes=0),
    one("Bias", "bias_param { axis: 2 num_axes: -1 }", X, weights=[(7, 5)]),
    one("Bias", "bias_param { axis: 0 }", X, X[:2], transposes=0),
)
cases("Axpy", *(one("Axpy", "", scale, X, X, transposes=0) for scale in ((2, 6, 1, 1), (2, 6))))
cases(
    "LRN",
    one("LRN", "", (1, 7, 5, 3), transposes=0),
    one("LRN", "lrn_param { local_size: 3 alpha: 2 beta: 0.5 k: 2 }", (2, 7, 5, 3), transposes=0),
    one("LRN", "lrn_param { local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL }", (1, 2, 7, 5), transposes=0),
    one(
        "LRN",
        "lrn_param { local_size: 5 alpha: 1 beta: 0.5 k: 3 norm_region: WITHIN_CHANNEL }",
        (1, 2, 7, 5),
        transposes=0,
    ),
)
cases(
    "MVN",
    one("MVN", "", X, transposes=0),
    one("MVN", "mvn_param { across_channels: true eps: 0.1 }", X, transposes=0),
    one("MVN", "mvn_param { normalize_variance: false }", X, transposes=0),
    one("MVN", "mvn_param { eps: 0.25 }", X, transposes=0),
)
cases(
    "Normalize",
    one("Normalize", "norm_param { across_spatial: false channel_shared: false }", X, weights=[(6,)], transposes=0),
    one("Normalize", "", X, weights=[(1,)], transposes=0),
    one("Normalize", "norm_param { channel_shared: false eps: 0.5 }", X, weights=[(6,)], transposes=0),
)
cases(
    "ROIPooling",
    *(
        one(
            "ROIPooling",
            "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 }",
            (2, 3, 11, 9),
            shape,
            given={
                "x1": np.array(
                    [[0, 0, 0, 20, 30], [1, 5, 7, 5, 9], [0, 12, 3, 40, 50], [1, 30, 38, 35, 43]], np.float32
                ).reshape(shape)
            },
        )
        for shape in ((4, 5), (4, 5, 1, 1))
    ),
)

plain("ReLU", "", "relu_param { negative_slope: 0.1 }")
plain("ReLU6", low=-2, high=9)
plain("Sigmoid", low=-4, high=4)
plain("TanH", low=-2, high=2)
plain("AbsVal")
plain("BNLL", low=-4, high=4)
plain("ELU", "", "elu_param { alpha: 0.5 }", low=-3, high=3)
plain("Exp", "", "exp_param { base: 2 scale: 0.5 shift: -1 }", "exp_param { scale: 2 }")
CASES["Exp"].append(one("Exp", "exp_param { base: 1 }", X))  # a constant
plain("Log", "", "log_param { base: 10 scale: 2 shift: 1 }", "log_param { shift: 0.5 }", low=0.1, high=5)
plain(
    "Power",
    "",
    "power_param { power: 2 scale: 0.5 shift: -0.25 }",
    "power_param { scale: 3 }",
    "power_param { shift: 2 }",
    "power_param { power: -0.5 scale: 0.5 shift: 2 }",
    "power_param { power: 0 }",
    "power_param { power: 3 }",
)
CASES["Power"].append(one("Power", "power_param { scale: 0 shift: 3 power: 2 }", X))  # a constant, too
plain("Threshold", "", "threshold_param { threshold: 0.3 }")
plain("Clip", "clip_param { min: -0.5 max: 0.25 }")
plain("Swish", "", "swish_param { beta: 1.5 }", low=-4, high=4)
plain("HardSwish", low=-4, high=4)
plain("HSwish", low=-4, high=4)
plain("Mish", low=-4, high=4)
plain("Dropout", "", "dropout_param { dropout_ratio: 0.3 }")
cases(
    "PReLU",
    one("PReLU", "", X, weights=[(6,)], transposes=0),
    one("PReLU", "prelu_param { channel_shared: true }", X, weights=[()], transposes=0),
    one("PReLU", "", (3, 5), weights=[(5,)]),
)
cases(
    "CReLU",
    one("CReLU", "", X, transposes=0),
    one("CReLU", "crelu_param { negative_slope: 0.1 concat_axis: 2 }", X, transposes=0),
)
cases(
    "Eltwise",
    one("Eltwise", "", X, X, transposes=0),
    one("Eltwise", "eltwise_param { operation: PROD }", X, X, X, transposes=0),
    one("Eltwise", "eltwise_param { operation: MAX }", X, X, X, transposes=0),
    one("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }", X, X, transposes=0),
    one("Eltwise", "eltwise_param { coeff: [0.5, 1, -2] }", X, X, X, transposes=0),
)
cases(
    "Softmax",
    one("Softmax", "", X, low=-3, high=3),
    one("Softmax", "", (3, 5), low=-3, high=3),
    one("Softmax", "softmax_param { axis: -1 }", X, low=-3, high=3),
    one("Softmax", "softmax_param { axis: 2 }", (2, 3, 5), low=-3, high=3),
)
cases(
    "Reduction",
    one("Reduction", "", (2, 3, 5)),
    one("Reduction", "reduction_param { operation: MEAN axis: 1 }", X),
    one("Reduction", "reduction_param { operation: ASUM axis: 2 coeff: 0.5 }", X),
    one("Reduction", "reduction_param { operation: SUMSQ axis: -1 }", X),
    one("Reduction", "reduction_param { operation: SUM axis: 2 coeff: -0.25 }", X),
)
cases(
    "ArgMax",
    one("ArgMax", "argmax_param { axis: 1 }", X),
    one("ArgMax", "argmax_param { axis: -1 top_k: 2 }", X),
    one("ArgMax", "argmax_param { axis: 1 top_k: 3 out_max_val: true }", X),
    one("ArgMax", "", (3, 11)),
    one("ArgMax", "argmax_param { top_k: 4 }", X),
    one("ArgMax", "argmax_param { top_k: 4 out_max_val: true }", (3, 2, 5)),
    one("ArgMax", "argmax_param { out_max_val: true }", (3, 11)),
    one("ArgMax", "argmax_param { axis: 1 }", (2, 5), given={"x0": np.array([[0, 2, 2, 1, 2], [3, 3, 0, 0, 0]])}),
)

cases(
    "Concat",
    one("Concat", "", (2, 3, 5, 7), (2, 4, 5, 7), (2, 1, 5, 7), transposes=0),
    one("Concat", "concat_param { axis: -2 }", (2, 3, 5, 7), (2, 3, 4, 7), transposes=0),
    one("Concat", "concat_param { concat_dim: 3 }", (2, 3, 5, 7), (2, 3, 5, 4), transposes=0),
    one("Concat", "concat_param { axis: 0 }", (2, 3), (1, 3)),
)
cases(
    "Slice",
    one("Slice", "", X, tops=3, transposes=0),
    one("Slice", "slice_param { slice_point: 1 slice_point: 4 }", X, tops=3, transposes=0),
    one("Slice", "slice_param { slice_dim: 2 slice_point: 5 }", X, tops=2, transposes=0),
    one("Slice", "slice_param { axis: -1 slice_point: [1, 2] }", X, tops=3, transposes=0),
    one("Slice", "slice_param { axis: 0 }", (2, 3), tops=2),
)
cases(
    "Crop",
    one("Crop", "", (2, 3, 9, 11), (2, 4, 5, 7), transposes=0),
    one("Crop", "crop_param { offset: 3 }", (2, 3, 9, 11), (2, 4, 5, 7), transposes=0),
    one("Crop", "crop_param { offset: 2 offset: 4 }", (2, 3, 9, 11), (2, 4, 5, 7), transposes=0),
    one("Crop", "crop_param { axis: 1 offset: [1, 2, 3] }", (2, 6, 9, 11), (2, 4, 5, 7), transposes=0),
    one("Crop", "crop_param { axis: -1 offset: 4 }", (2, 6, 9, 11), (2, 4, 5, 7), transposes=0),
)
cases(
    "Permute",
    one("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", X),
    one("Permute", "permute_param { order: 0 order: 3 }", X),
    one("Permute", "permute_param { order: [1, 0] }", (3, 5)),
)
cases(
    "Tile",
    one("Tile", "tile_param { tiles: 3 }", X, transposes=0),
    one("Tile", "tile_param { axis: -1 tiles: 2 }", X, transposes=0),
    one("Tile", "tile_param { axis: 0 tiles: 2 }", (2, 3)),
)
cases(
    "Flatten",
    one("Flatten", "", X),
    one("Flatten", "flatten_param { axis: 2 end_axis: 3 }", X),
    one("Flatten", "flatten_param { axis: 0 end_axis: -2 }", X),
)
cases(
    "Reshape",
    one("Reshape", "reshape_param { shape { dim: 0 dim: -1 } }", X),
    one("Reshape", "reshape_param { shape { dim: 0 dim: 3 dim: -1 dim: 5 } }", X),
    one("Reshape", "reshape_param { shape { dim: 2 dim: 3 } axis: 1 num_axes: 1 }", X),
    one("Reshape", "reshape_param { shape { dim: 1 } axis: -1 num_axes: 0 }", (2, 3, 5)),
    one("Reshape", "reshape_param { shape { dim: [5, -1] } axis: -2 }", (2, 7, 5)),
)
cases(
    "Reverse",
    one("Reverse", "reverse_param { axis: 1 }", X, transposes=0),
    one("Reverse", "", X, transposes=0),
    one("Reverse", "reverse_param { axis: 2 axis: 3 }", X, transposes=0),
)
cases("ShuffleChannel", *(one("ShuffleChannel", f"shuffle_channel_param {{ group: {g} }}", X) for g in (2, 3)))
cases(
    "Reorg",
    one("Reorg", "reorg_param { stride: 2 }", (2, 8, 6, 10)),
    one("Reorg", "reorg_param { stride: 3 }", (1, 18, 3, 6)),
    one("Reorg", "reorg_param { stride: 2 reverse: true }", (2, 8, 3, 5)),
)
cases(
    "Upsample",
    one("Upsample", "upsample_param { scale: 2 }", X, transposes=0),
    one("Upsample", "upsample_param { scale_h: 3 scale_w: 2 }", X, transposes=0),
    one("Upsample", "upsample_param { scale: 1 stride: 2 }", X, transposes=0),
    one("Upsample", "upsample_param { scale: 0.5 stride_h: 1 stride_w: 3 }", X),
)
cases(
    "Interp",
    one("Interp", "interp_param { height: 10 width: 13 }", X, transposes=0),
    one("Interp", "interp_param { zoom_factor: 2 }", X, transposes=0),
    one("Interp", "interp_param { shrink_factor: 2 }", X, transposes=0),
    one("Interp", "interp_param { shrink_factor: 2 zoom_factor: 3 }", X, transposes=0),
    one("Interp", "interp_param { height: 1 width: 1 }", X, transposes=0),
    one("Interp", "interp_param { height: 9 width: 4 pad_beg: -1 pad_end: -2 }", X, transposes=0),
    one("Interp", "", X, (2, 1, 4, 9), transposes=0),
)
_CONT = np.array([[0, 0], [1, 1], [1, 0], [1, 1]], np.float32)  # the second sequence begins anew
cases(
    "LSTM",
    one(
        "LSTM",
        "recurrent_param { num_output: 3 }",
        (4, 2, 5),
        (4, 2),
        weights=[(12, 5), (12,), (12, 3)],
        given={"x1": _CONT},
    ),
    one(
        "LSTM",
        "recurrent_param { num_output: 3 }",
        (4, 2, 5, 1),
        (4, 2),
        (2, 6),
        weights=[(12, 5), (12,), (12, 6), (12, 3)],
        given={"x1": _CONT},
    ),
    one(
        "LSTM",
        "recurrent_param { num_output: 3 expose_hidden: true }",
        (4, 2, 5),
        (4, 2),
        (1, 2, 3),
        (1, 2, 3),
        weights=[(12, 5), (12,), (12, 3)],
        given={"x1": _CONT},
        tops=3,
    ),
)
cases(
    "RNN",
    one(
        "RNN",
        "recurrent_param { num_output: 3 }",
        (4, 2, 5),
        (4, 2),
        weights=[(3, 5), (3,), (3, 3), (3, 3), (3,)],
        given={"x1": _CONT},
    ),
)
_PRIORS = "prior_box_param {{ {} min_size: 30 max_size: 60 aspect_ratio: 2 variance: [0.1, 0.1, 0.2, 0.2] }}"
cases(
    "PriorBox",
    *(
        one("PriorBox", text, (1, 3, 5, 7), (1, 3, 100, 150))
        for text in (
            _PRIORS.format(""),
            _PRIORS.format("aspect_ratio: 3 aspect_ratio: 0.5 flip: false clip: true offset: 0.25"),
            _PRIORS.format("clip: false step: 16"),
            _PRIORS.format("clip: false step_h: 20 step_w: 12"),
            "prior_box_param { min_size: [12.8, 40] max_size: [25.6, 80] aspect_ratio: [1, 2, 2, 0.5] clip: false }",
            "prior_box_param { min_size: [12, 40] aspect_ratio: [1, 2, 2, 3] variance: 0.3 clip: false }",
            _PRIORS.format("clip: false img_size: 120"),
            _PRIORS.format("clip: false step: 16 img_h: 90 img_w: 110"),
        )
    ),
)
cases("Split", one("Split", "", X, tops=2, transposes=0))
cases(
    "Silence",
    Case(
        network(
            'layer { name: "n" type: "Silence" bottom: "x0" }\n'
            'layer { name: "r" type: "ReLU" bottom: "x1" top: "y0" }\n',
            {"x0": (1, 3), "x1": X},
        ),
        {"x0": (1, 3), "x1": X},
    ),
)
cases(
    "Parameter",
    Case(
        network(
            'layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: [2, 6, 7, 5] } } }\n'
            'layer { name: "s" type: "Eltwise" bottom: "x0" bottom: "w" top: "y0" }\n',
            {"x0": X},
        ),
        {"x0": X},
        {"w": [np.random.default_rng(3).uniform(-1, 1, X).astype(np.float32)]},
    ),
)
