"""What Caffe's layers compute, written down from their documentation in numpy and float64, slow and obvious.

A judge of the Caffe frontend, so it shares nothing with it: it has its own reader of network descriptions and its own
defaults. `run` evaluates a network; LAYERS holds a function per type of layer: (layer, bottoms, weights) → tops.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layer = Callable[["Message", list[Array], list[Array]], "list[Array]"]
T = TypeVar("T")
LAYERS: dict[str, Layer] = {}
_TOKEN = re.compile(r'"[^"]*"|\'[^\']*\'|[{}\[\]:,;]|[^\s{}\[\]:,;"\']+')


class Message:
    """A message of protobuf's text form: field → its values in order."""

    def __init__(self, fields: dict[str, list[Any]] | None = None) -> None:
        self.fields = fields or {}

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def all(self, name: str) -> list[Any]:
        """The values of a repeated field."""
        return self.fields.get(name, [])

    def get(self, name: str, default: T) -> T:
        """The value of a field, which has the default's type."""
        return self.fields[name][-1] if name in self.fields else default  # type: ignore[no-any-return]

    def sub(self, name: str) -> Message:
        """A message inside; one without fields if it is not there."""
        return self.get(name, Message())


def parse(text: str) -> Message:
    """Read protobuf's text form."""
    tokens = _TOKEN.findall(re.sub(r"#[^\n]*", "", text))
    return _message(iter([*tokens, "}"]))


def _message(tokens: Iterator[str]) -> Message:
    fields: dict[str, list[Any]] = {}
    for name in tokens:
        if name == "}":
            break
        if name in ",;":
            continue
        token = next(tokens)
        token = next(tokens) if token == ":" else token
        if token == "{":
            values = [_message(tokens)]
        elif token == "[":
            values = [_scalar(item) for item in itertools.takewhile(lambda t: t != "]", tokens) if item != ","]
        else:
            values = [_scalar(token)]
        fields.setdefault(name, []).extend(values)
    return Message(fields)


def _scalar(token: str) -> Any:
    """A number, a truth value, or the text of a string or of an enum's name."""
    if token in ("true", "false"):
        return token == "true"
    for kind in (int, float):
        try:
            return kind(token)
        except ValueError:
            pass
    return token.strip("\"'")


def run(text: str, feeds: Mapping[str, Any], weights: Mapping[str, Sequence[Any]]) -> dict[str, Array]:
    """All blobs of a network, after its last layer; `weights` layer → blobs. No layer may be of another phase."""
    blobs = {name: np.asarray(value, np.float64) for name, value in feeds.items()}
    for layer in parse(text).all("layer"):
        kind, name = layer.get("type", ""), layer.get("name", "")
        if kind == "Input":
            continue
        bottoms = [blobs[bottom] for bottom in layer.all("bottom")]
        tops = LAYERS[kind](layer, bottoms, [np.asarray(w, np.float64) for w in weights.get(name, ())])
        blobs.update(zip(layer.all("top"), tops, strict=True))
    return blobs


def layer(*kinds: str) -> Callable[[Layer], Layer]:
    def register(function: Layer) -> Layer:
        LAYERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def unary(*kinds: str) -> Callable[[Callable[[Message, Array], Array]], Callable[[Message, Array], Array]]:
    """Register (layer, x) → y."""

    def register(function: Callable[[Message, Array], Array]) -> Callable[[Message, Array], Array]:
        layer(*kinds)(lambda p, bottoms, _: [function(p, bottoms[0])])
        return function

    return register


# -- sliding windows ---------------------------------------------------------------------------------------------------
def pair(p: Message, stem: str, repeated: str, default: int) -> tuple[int, int]:
    """(height, width) of kernel, stride, pad or dilation: kernel_h and kernel_w, or kernel_size once or twice."""
    if f"{stem}_h" in p or f"{stem}_w" in p:
        return p.get(f"{stem}_h", default), p.get(f"{stem}_w", default)
    given = p.all(repeated) or [default]
    return int(given[0]), int(given[-1])


@layer("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")
def convolution(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Output extent floor((in + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1; weights [O, I / group, kh, kw]."""
    c = p.sub("convolution_param")
    (kh, kw), (sh, sw) = pair(c, "kernel", "kernel_size", 0), pair(c, "stride", "stride", 1)
    (ph, pw), (dh, dw) = pair(c, "pad", "pad", 0), pair(c, "dilation", "dilation", 1)
    w, tops = weights[0], []
    for x in bottoms:
        group = c.get("group", 1) if p.get("type", "") == "Convolution" else x.shape[1]
        padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        oh = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
        ow = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
        parts = []
        for xs, ws in zip(np.split(padded, group, 1), np.split(w, group, 0), strict=True):
            y = np.zeros((x.shape[0], ws.shape[0], oh, ow))
            for i, j in itertools.product(range(kh), range(kw)):
                taps = xs[:, :, i * dh : i * dh + sh * (oh - 1) + 1 : sh, j * dw : j * dw + sw * (ow - 1) + 1 : sw]
                y += np.einsum("nchw,oc->nohw", taps, ws[:, :, i, j])
            parts.append(y)
        y = np.concatenate(parts, 1)
        tops.append(y + weights[1].reshape(1, -1, 1, 1) if c.get("bias_term", True) else y)
    return tops


@layer("Deconvolution")
def deconvolution(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Every input scatters its kernel; weights [I, O / group, kh, kw]; `pad` is cut off the result."""
    c = p.sub("convolution_param")
    (kh, kw), (sh, sw) = pair(c, "kernel", "kernel_size", 0), pair(c, "stride", "stride", 1)
    (ph, pw), (dh, dw) = pair(c, "pad", "pad", 0), pair(c, "dilation", "dilation", 1)
    x, w, group = bottoms[0], weights[0], c.get("group", 1)
    n, _, h, wide = x.shape
    parts = []
    for xs, ws in zip(np.split(x, group, 1), np.split(w, group, 0), strict=True):
        full = np.zeros((n, ws.shape[1], sh * (h - 1) + dh * (kh - 1) + 1, sw * (wide - 1) + dw * (kw - 1) + 1))
        for a, b, i, j in itertools.product(range(h), range(wide), range(kh), range(kw)):
            full[:, :, a * sh + i * dh, b * sw + j * dw] += xs[:, :, a, b] @ ws[:, :, i, j]
        parts.append(full[:, :, ph : full.shape[2] - ph, pw : full.shape[3] - pw])
    y = np.concatenate(parts, 1)
    return [y + weights[1].reshape(1, -1, 1, 1) if c.get("bias_term", True) else y]


def pooled_extent(extent: int, kernel: int, stride: int, pad: int, round_mode: str, padded: bool) -> int:
    """Rounded up, but with padding, of either axis, no window may start beyond the data and the padding in front."""
    steps = (extent + 2 * pad - kernel) / stride
    count = (math.floor(steps) if round_mode == "FLOOR" else math.ceil(steps)) + 1
    return count - 1 if padded and (count - 1) * stride >= extent + pad else count


@layer("Pooling")
def pooling(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """AVE divides by the window's extent inside data and padding, of which the sum takes the data only."""
    c, x = p.sub("pooling_param"), bottoms[0]
    h, w = x.shape[2:]
    kernel, strides = pair(c, "kernel", "kernel_size", 0), pair(c, "stride", "stride", 1)
    pads = pair(c, "pad", "pad", 0)
    if c.get("global_pooling", False):
        kernel, strides, pads = (h, w), (1, 1), (0, 0)
    mode = "FLOOR" if not c.get("ceil_mode", True) else c.get("round_mode", "CEIL")
    oh, ow = (pooled_extent(x.shape[2 + a], kernel[a], strides[a], pads[a], mode, any(pads)) for a in (0, 1))
    y = np.zeros((*x.shape[:2], oh, ow))
    for i, j in itertools.product(range(oh), range(ow)):
        top, left = i * strides[0] - pads[0], j * strides[1] - pads[1]
        bottom, right = min(top + kernel[0], h + pads[0]), min(left + kernel[1], w + pads[1])
        window = x[:, :, max(top, 0) : min(bottom, h), max(left, 0) : min(right, w)]
        if c.get("pool", "MAX") in ("AVE", 1):
            y[:, :, i, j] = window.sum((2, 3)) / ((bottom - top) * (right - left))
        else:
            y[:, :, i, j] = window.max((2, 3))
    return [y]


@layer("LRN")
def lrn(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c, x = p.sub("lrn_param"), bottoms[0]
    size, alpha, beta = c.get("local_size", 5), c.get("alpha", 1.0), c.get("beta", 0.75)
    half, square = (size - 1) // 2, x**2
    total = np.zeros_like(x)
    if c.get("norm_region", "ACROSS_CHANNELS") in ("WITHIN_CHANNEL", 1):
        square = np.pad(square, ((0, 0), (0, 0), (half, half), (half, half)))
        for i, j in itertools.product(range(size), range(size)):
            total += square[:, :, i : i + x.shape[2], j : j + x.shape[3]]
        return [x * (1 + alpha * total / size**2) ** -beta]
    square = np.pad(square, ((0, 0), (half, half), (0, 0), (0, 0)))
    for i in range(size):
        total += square[:, i : i + x.shape[1]]
    return [x * (c.get("k", 1.0) + alpha / size * total) ** -beta]


@layer("ROIPooling")
def roi_pooling(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Regions [R, 5]: picture, x1, y1, x2, y2, corners included."""
    c, x, rois = p.sub("roi_pooling_param"), bottoms[0], bottoms[1].reshape(-1, 5)
    ph, pw, scale = c.get("pooled_h", 0), c.get("pooled_w", 0), c.get("spatial_scale", 1.0)
    y = np.zeros((len(rois), x.shape[1], ph, pw))
    for r, roi in enumerate(rois):
        x1, y1, x2, y2 = (math.floor(v * scale + 0.5) for v in roi[1:])
        height, width = max(y2 - y1 + 1, 1) / ph, max(x2 - x1 + 1, 1) / pw
        for i, j in itertools.product(range(ph), range(pw)):
            rows = np.clip([math.floor(i * height) + y1, math.ceil((i + 1) * height) + y1], 0, x.shape[2])
            columns = np.clip([math.floor(j * width) + x1, math.ceil((j + 1) * width) + x1], 0, x.shape[3])
            window = x[int(roi[0]), :, rows[0] : rows[1], columns[0] : columns[1]]
            y[r, :, i, j] = window.max((1, 2)) if window.size else 0
    return [y]


# -- sums of products --------------------------------------------------------------------------------------------------
@layer("InnerProduct")
def inner_product(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c, x, w = p.sub("inner_product_param"), bottoms[0], weights[0]
    axis = c.get("axis", 1) % x.ndim
    w = w.reshape(-1, c.get("num_output", 0)).T if c.get("transpose", False) else w.reshape(c.get("num_output", 0), -1)
    y = x.reshape(*x.shape[:axis], -1) @ w.T
    return [y + weights[1].ravel() if c.get("bias_term", True) else y]


@layer("Embed")
def embed(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    y = weights[0].reshape(-1, p.sub("embed_param").get("num_output", 0))[bottoms[0].astype(int)]
    return [y + weights[1].ravel() if p.sub("embed_param").get("bias_term", True) else y]


def sigmoid_of(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@layer("LSTM")
def lstm(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """x [T, N, ...], cont [T, N] (0 where a sequence begins), with static input [N, ...] behind it; gates i, f, o, g.

    With expose_hidden the last two bottoms and tops are the state h, c, [1, N, H].
    """
    c = p.sub("recurrent_param")
    size, exposed = c.get("num_output", 0), c.get("expose_hidden", False)
    x, cont = bottoms[:2]
    steps, batch = cont.shape
    h, state = (b[0] for b in bottoms[-2:]) if exposed else (np.zeros((batch, size)),) * 2
    static = len(bottoms) - 2 * exposed == 3
    part = bottoms[2].reshape(batch, -1) @ weights[2].T if static else 0
    tops = []
    for t in range(steps):
        goes_on = cont[t][:, None]
        gates = x[t].reshape(batch, -1) @ weights[0].T + weights[1].ravel() + part + (goes_on * h) @ weights[-1].T
        i, f, o, g = np.split(gates, 4, 1)
        state = goes_on * sigmoid_of(f) * state + sigmoid_of(i) * np.tanh(g)
        h = sigmoid_of(o) * np.tanh(state)
        tops.append(h)
    return [np.stack(tops), h[None], state[None]] if exposed else [np.stack(tops)]


@layer("RNN")
def rnn(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Weights: x → h, bias of h, static → h where there is one, h → h, h → output, bias of the output; tanh of both."""
    x, cont = bottoms[:2]
    steps, batch = cont.shape
    h = np.zeros((batch, p.sub("recurrent_param").get("num_output", 0)))
    part = bottoms[2].reshape(batch, -1) @ weights[2].T if len(bottoms) == 3 else 0
    recurrent, out, bias = weights[-3:]
    tops = []
    for t in range(steps):
        before = (cont[t][:, None] * h) @ recurrent.T
        h = np.tanh(x[t].reshape(batch, -1) @ weights[0].T + weights[1].ravel() + part + before)
        tops.append(np.tanh(h @ out.T + bias.ravel()))
    return [np.stack(tops)]


# -- normalisation and scaling -----------------------------------------------------------------------------------------
def by_channel(values: Array, x: Array) -> Array:
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


@layer("BatchNorm")
def batch_norm(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Weights: sums of means and variances, and what to divide them by (0: both are 0)."""
    x, factor = bottoms[0], weights[2].item()
    mean, variance = (w / factor if factor else w * 0 for w in weights[:2])
    return [(x - by_channel(mean, x)) / np.sqrt(by_channel(variance, x) + p.sub("batch_norm_param").get("eps", 1e-5))]


@layer("BN")
def bn(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Slope and bias (as folded for inference), or those with mean and variance."""
    x = bottoms[0]
    slope, bias, *rest = (by_channel(w, x) for w in weights)
    eps = p.sub("bn_param").get("eps", 1e-5)
    return [(x - rest[0]) / np.sqrt(rest[1] + eps) * slope + bias if rest else x * slope + bias]


def aligned(values: Array, x: Array, axis: int) -> Array:
    """Values along the axes of x from `axis` on."""
    axis %= x.ndim
    return values.reshape(*[1] * axis, *values.shape, *[1] * (x.ndim - axis - values.ndim))


@layer("Scale")
def scale(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """The scale is the second bottom or learned, along as many axes as num_axes says."""
    c, x = p.sub("scale_param"), bottoms[0]
    given = bottoms[1:] + weights
    axis = c.get("axis", 1)
    y = x * (aligned(given[0], x, axis) if given[0].ndim else given[0])
    return [y + aligned(given[1].reshape(given[0].shape), x, axis) if c.get("bias_term", False) else y]


@layer("Bias")
def bias(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    given = (bottoms[1:] + weights)[0]
    return [bottoms[0] + aligned(given, bottoms[0], p.sub("bias_param").get("axis", 1))]


@layer("Axpy")
def axpy(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """a [N, C] or [N, C, 1, 1], x, y → a x + y."""
    a, x, y = bottoms
    return [a.reshape(*x.shape[:2], 1, 1) * x + y]


@layer("MVN")
def mvn(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c, x = p.sub("mvn_param"), bottoms[0]
    axes = tuple(range(1 if c.get("across_channels", False) else 2, x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    if not c.get("normalize_variance", True):
        return [centred]
    return [centred / (np.sqrt((centred**2).mean(axes, keepdims=True)) + c.get("eps", 1e-9))]


@layer("Normalize")
def normalize(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c, x = p.sub("norm_param"), bottoms[0]
    axes = (1, 2, 3) if c.get("across_spatial", True) else (1,)
    norm = np.sqrt((x**2).sum(axes, keepdims=True) + c.get("eps", 1e-10))
    return [x / norm * by_channel(weights[0].ravel(), x)]


# -- elementwise -------------------------------------------------------------------------------------------------------
@unary("ReLU")
def relu(p: Message, x: Array) -> Array:
    return np.where(x > 0, x, p.sub("relu_param").get("negative_slope", 0.0) * x)


@layer("PReLU")
def prelu(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    x = bottoms[0]
    return [np.where(x > 0, x, by_channel(weights[0].ravel(), x) * x)]


@unary("ELU")
def elu(p: Message, x: Array) -> Array:
    return np.where(x > 0, x, p.sub("elu_param").get("alpha", 1.0) * (np.exp(np.minimum(x, 0)) - 1))


@unary("Power")
def power(p: Message, x: Array) -> Array:
    c = p.sub("power_param")
    return (c.get("shift", 0.0) + c.get("scale", 1.0) * x) ** c.get("power", 1.0)


@unary("Exp")
def exp(p: Message, x: Array) -> Array:
    """Base -1 stands for e."""
    c = p.sub("exp_param")
    inner = c.get("shift", 0.0) + c.get("scale", 1.0) * x
    return np.exp(inner) if c.get("base", -1.0) == -1 else c.get("base", -1.0) ** inner


@unary("Log")
def log(p: Message, x: Array) -> Array:
    c = p.sub("log_param")
    inner = np.log(c.get("shift", 0.0) + c.get("scale", 1.0) * x)
    return inner if c.get("base", -1.0) == -1 else inner / math.log(c.get("base", -1.0))


@unary("Threshold")
def threshold(p: Message, x: Array) -> Array:
    return (x > p.sub("threshold_param").get("threshold", 0.0)).astype(np.float64)


@unary("Clip")
def clip(p: Message, x: Array) -> Array:
    c = p.sub("clip_param")
    return np.clip(x, c.get("min", 0.0), c.get("max", 0.0))


@unary("Swish")
def swish(p: Message, x: Array) -> Array:
    return x * sigmoid_of(p.sub("swish_param").get("beta", 1.0) * x)


def _plain(function: Callable[[Array], Array]) -> Layer:
    """A function without parameters, of each bottom."""
    return lambda p, bottoms, weights: [function(x) for x in bottoms]


LAYERS.update(
    {
        "ReLU6": _plain(lambda x: np.clip(x, 0, 6)),
        "Sigmoid": _plain(sigmoid_of),
        "TanH": _plain(np.tanh),
        "AbsVal": _plain(np.abs),
        "BNLL": _plain(lambda x: np.log(1 + np.exp(x))),
        "HardSwish": _plain(lambda x: x * np.clip(x + 3, 0, 6) / 6),
        "HSwish": _plain(lambda x: x * np.clip(x + 3, 0, 6) / 6),
        "HardSigmoid": _plain(lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
        "Mish": _plain(lambda x: x * np.tanh(np.log(1 + np.exp(x)))),
        "Dropout": _plain(lambda x: x),
        "Split": lambda p, bottoms, weights: [bottoms[0]] * len(p.all("top")),
        "Silence": lambda p, bottoms, weights: [],
        "Parameter": lambda p, bottoms, weights: [weights[0]],
    }
)


@layer("Eltwise")
def eltwise(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c = p.sub("eltwise_param")
    operation = c.get("operation", "SUM")
    if operation in ("PROD", 0):
        return [math.prod(bottoms[1:], start=bottoms[0])]
    if operation in ("MAX", 2):
        return [np.max(bottoms, 0)]
    factors = c.all("coeff") or [1.0] * len(bottoms)
    return [np.sum([f * x for f, x in zip(factors, bottoms, strict=True)], 0)]


@layer("CReLU")
def crelu(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c, x = p.sub("crelu_param"), bottoms[0]
    slope = c.get("negative_slope", 0.0)
    halves = [np.where(v > 0, v, slope * v) for v in (x, -x)]
    return [np.concatenate(halves, c.get("concat_axis", 1))]


@layer("Softmax")
def softmax(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    axis = p.sub("softmax_param").get("axis", 1)
    e = np.exp(bottoms[0] - bottoms[0].max(axis, keepdims=True))
    return [e / e.sum(axis, keepdims=True)]


# -- reductions --------------------------------------------------------------------------------------------------------
@layer("Reduction")
def reduction(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Over all axes from `axis` on, which the result no longer has."""
    c, x = p.sub("reduction_param"), bottoms[0]
    axis = c.get("axis", 0) % x.ndim
    rows = x.reshape(*x.shape[:axis], -1)
    functions: dict[Any, Callable[[Array], Array]] = {
        "SUM": lambda v: v.sum(-1),
        "ASUM": lambda v: np.abs(v).sum(-1),
        "SUMSQ": lambda v: (v**2).sum(-1),
        "MEAN": lambda v: v.mean(-1),
    }
    return [c.get("coeff", 1.0) * functions[c.get("operation", "SUM")](rows)]


def largest(x: Array, axis: int, count: int) -> NDArray[np.intp]:
    """Places of the `count` largest values along an axis; of equal ones the last comes first."""
    backwards = np.argsort(-np.flip(x, axis), axis, kind="stable")
    return np.take(x.shape[axis] - 1 - backwards, np.arange(count), axis)


@layer("ArgMax")
def arg_max(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Along `axis`: the places of the top_k, or with out_max_val their values. Without: of all values of a sample,
    [N, 1, top_k], with out_max_val [N, 2, top_k] of places and values; as many axes as x, but 3 at least."""
    c, x = p.sub("argmax_param"), bottoms[0]
    k, values = c.get("top_k", 1), c.get("out_max_val", False)
    if "axis" in c:
        axis = c.get("axis", 0) % x.ndim
        places = largest(x, axis, k)
        return [np.take_along_axis(x, places, axis) if values else places.astype(np.float64)]
    rows = x.reshape(len(x), -1)
    places = largest(rows, 1, k)
    both = [places.astype(np.float64), np.take_along_axis(rows, places, 1)][: 1 + values]
    return [np.stack(both, 1).reshape(len(x), 1 + values, k, *[1] * (x.ndim - 3))]


# -- moving ------------------------------------------------------------------------------------------------------------
@layer("Concat")
def concat(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c = p.sub("concat_param")
    return [np.concatenate(bottoms, c.get("axis", c.get("concat_dim", 1)))]


@layer("Slice")
def slice_(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c = p.sub("slice_param")
    return np.split(bottoms[0], c.all("slice_point") or len(p.all("top")), c.get("axis", c.get("slice_dim", 1)))


@layer("Crop")
def crop(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """To the extents of the second bottom along all axes from `axis` on, with one offset for all or each its own."""
    c, (x, like) = p.sub("crop_param"), bottoms
    axis = c.get("axis", 2) % x.ndim
    offsets = c.all("offset") or [0]
    offsets = offsets * (x.ndim - axis) if len(offsets) == 1 else offsets
    for i, offset in zip(range(axis, x.ndim), offsets, strict=True):
        x = np.take(x, np.arange(offset, offset + like.shape[i]), i)
    return [x]


@layer("Permute")
def permute(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Axes that `order` leaves out follow in their order."""
    order = p.sub("permute_param").all("order")
    return [bottoms[0].transpose([*order, *(i for i in range(bottoms[0].ndim) if i not in order)])]


@layer("Tile")
def tile(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c = p.sub("tile_param")
    return [np.concatenate([bottoms[0]] * c.get("tiles", 1), c.get("axis", 1))]


@layer("Flatten")
def flatten(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    c, x = p.sub("flatten_param"), bottoms[0]
    first, last = c.get("axis", 1) % x.ndim, c.get("end_axis", -1) % x.ndim
    return [x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])]


@layer("Reshape")
def reshape(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """0 keeps an extent, -1 takes what is left; of the axes from `axis` on, as many as num_axes says (-1: all)."""
    c, x = p.sub("reshape_param"), bottoms[0]
    axis, count = c.get("axis", 0), c.get("num_axes", -1)
    first = axis if axis >= 0 else x.ndim + axis + 1
    last = x.ndim if count == -1 else first + count
    dims = [x.shape[first + i] if dim == 0 else dim for i, dim in enumerate(c.sub("shape").all("dim"))]
    return [x.reshape(*x.shape[:first], *dims, *x.shape[last:])]


@layer("Reverse")
def reverse(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    return [np.flip(bottoms[0], p.sub("reverse_param").all("axis") or [0])]


@layer("ShuffleChannel")
def shuffle_channel(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Channel g · (C / G) + i becomes channel i · G + g."""
    x, groups = bottoms[0], p.sub("shuffle_channel_param").get("group", 1)
    each, y = x.shape[1] // groups, np.empty_like(x)
    for g, i in itertools.product(range(groups), range(each)):
        y[:, i * groups + g] = x[:, g * each + i]
    return [y]


@layer("Reorg")
def reorg(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """darknet's: element (c, h, w) of one array [C, H, W] and element (c mod C', h s + (c div C') div s,
    w s + (c div C') mod s) of one [C', H s, W s], C' = C / s², are the same. It reads the second as the memory of x,
    and calls what it writes [C s², H / s, W / s]; reversed, it reads the first and writes the second."""
    c, x = p.sub("reorg_param"), bottoms[0]
    s, back = c.get("stride", 2), c.get("reverse", False)
    n, channels, height, width = x.shape
    few = channels // s**2
    wide = x.reshape(n, few, height * s, width * s) if not back else np.empty((n, few, height * s, width * s))
    deep = np.empty_like(x) if not back else x
    for k, i, j in itertools.product(range(channels), range(height), range(width)):
        place = (k % few, i * s + k // few // s, j * s + k // few % s)
        if back:
            wide[:, place[0], place[1], place[2]] = deep[:, k, i, j]
        else:
            deep[:, k, i, j] = wide[:, place[0], place[1], place[2]]
    return [wide if back else deep.reshape(n, channels * s**2, height // s, width // s)]


@layer("Upsample")
def upsample(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Repeats rows and columns: `scale` times, or `stride` times where that is given and `scale` is a factor."""
    c, x = p.sub("upsample_param"), bottoms[0]
    strided = any(name.startswith("stride") for name in c.fields)
    h, w = pair(c, "stride" if strided else "scale", "stride" if strided else "scale", 1)
    return [x.repeat(h, 2).repeat(w, 3) * (c.get("scale", 1.0) if strided else 1)]


@layer("Interp")
def interp(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """Bilinear, corners on corners; negative pads cut off first. The size: of a second bottom, or by the parameters."""
    c, x = p.sub("interp_param"), bottoms[0]
    begin, end = -c.get("pad_beg", 0), -c.get("pad_end", 0)
    x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
    size = []
    for axis, name in ((2, "height"), (3, "width")):
        extent = x.shape[axis]
        if len(bottoms) == 2:
            extent = bottoms[1].shape[axis]
        elif "zoom_factor" not in c and "shrink_factor" not in c:
            extent = c.get(name, 0)
        else:
            extent = (extent - 1) // c.get("shrink_factor", 1) + 1
            extent += (extent - 1) * (c.get("zoom_factor", 1) - 1)
        size.append(extent)
    for axis, extent in zip((2, 3), size, strict=True):
        last = x.shape[axis] - 1
        places = np.arange(extent) * (last / (extent - 1) if extent > 1 else 0)
        low = np.minimum(np.floor(places).astype(int), last)
        share = (places - low).reshape(-1, *[1] * (3 - axis))
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, last), axis) * share
    return [x]


# -- prior boxes -------------------------------------------------------------------------------------------------------
def ratios_of(c: Message) -> list[float]:
    """1, then every ratio that is not yet there, flipped behind it where asked."""
    found = [1.0]
    for ratio in c.all("aspect_ratio"):
        if all(abs(ratio - other) >= 1e-6 for other in found):
            found += [ratio, 1 / ratio] if c.get("flip", True) else [ratio]
    return found


@layer("PriorBox")
def prior_box(p: Message, bottoms: list[Array], weights: list[Array]) -> list[Array]:
    """[1, 2, 4 · boxes]: corners x1, y1, x2, y2 as shares of the picture, and their variances. At every place, for
    every min_size (whole pixels): its square, the square between it and max_size, then the other ratios."""
    c, (feature, picture) = p.sub("prior_box_param"), bottoms
    size = c.get("img_size", 0)
    height, width = c.get("img_h", size) or picture.shape[2], c.get("img_w", size) or picture.shape[3]
    rows, columns = feature.shape[2:]
    step, offset = c.get("step", 0.0), c.get("offset", 0.5)
    step_h, step_w = c.get("step_h", step) or height / rows, c.get("step_w", step) or width / columns
    boxes = []
    for i, j in itertools.product(range(rows), range(columns)):
        for index, least in enumerate(c.all("min_size")):
            extents = [(int(least), int(least))]
            if c.all("max_size"):
                extents.append((math.sqrt(int(least) * int(c.all("max_size")[index])),) * 2)
            for ratio in ratios_of(c)[1:]:
                extents.append((int(least) * math.sqrt(ratio), int(least) / math.sqrt(ratio)))
            for w, h in extents:
                x, y = (j + offset) * step_w, (i + offset) * step_h
                boxes.append([(x - w / 2) / width, (y - h / 2) / height, (x + w / 2) / width, (y + h / 2) / height])
    corners = np.clip(boxes, 0, 1) if c.get("clip", False) else np.array(boxes)
    variance = c.all("variance") or [0.1]
    variances = np.tile(variance * 4 if len(variance) == 1 else variance, len(boxes))
    return [np.stack([corners.ravel(), variances])[None]]
