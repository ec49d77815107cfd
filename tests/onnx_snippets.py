"""Small ONNX networks in the styles that exporters write, every extent of a tensor different from the others.

`Net` builds a model by calling operators; `SNIPPETS` names functions that build one. All weights are seeded.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET = 17


class Net:
    """`net("Conv", x, weight, pads=[...])` appends a node and returns the name of its result; arrays become
    initializers."""

    def __init__(self, seed: int = 0, opset: int = OPSET) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def input(self, name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weights(self, *shape: int) -> str:
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant(self.rng.normal(0, fan_in**-0.5, shape).astype(np.float32))

    def __call__(self, op: str, *operands: Any, outputs: int = 1, result: str = "", **attrs: Any) -> Any:
        names = [o if isinstance(o, str) else self.constant(o) for o in operands]
        stem = result or f"{op.lower()}{len(self.nodes)}"
        results = [stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, results, name=f"node_{stem}", **attrs))
        return results[0] if outputs == 1 else results

    def conv(self, x: str, channels_in: int, channels_out: int, kernel: int = 3, **attrs: Any) -> str:
        groups = attrs.get("group", 1)
        weights = self.weights(channels_out, channels_in // groups, kernel, kernel)
        bias = self.weights(channels_out)
        return str(self("Conv", x, weights, bias, **{"pads": [kernel // 2] * 4, **attrs}))

    def model(self, *outputs: str, producer: str = "") -> ModelProto:
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "snippet", self.inputs, results, self.initializers)
        domains = dict.fromkeys(node.domain for node in self.nodes if node.domain)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)


# ---- the networks ----------------------------------------------------------------------------------------------------


def conv_chain() -> ModelProto:
    net = Net()
    x = net.conv(net.input("x", 1, 3, 11, 13), 3, 8)
    x = net("Relu", x)
    x = net.conv(x, 8, 8, group=8)
    x = net("Clip", x, np.float32(0), np.float32(6))
    return net.model(net.conv(x, 8, 5, 1))


def residual() -> ModelProto:
    net = Net()
    a = net("Relu", net.conv(net.input("x", 1, 3, 11, 13), 3, 8))
    b = net.conv(net("Relu", net.conv(a, 8, 8)), 8, 8)
    return net.model(net("Relu", net("Add", a, b)))


def batch_norm_unfolded() -> ModelProto:
    net = Net()
    x = net.conv(net.input("x", 1, 3, 11, 13), 3, 6)
    x = net("Mul", x, net.constant(np.linspace(0.5, 2, 6, dtype=np.float32).reshape(6, 1, 1)))
    x = net("Add", x, net.constant(np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 6, 1, 1)))
    return net.model(net("Relu", x))


def squeeze_excite_by_conv() -> ModelProto:
    net = Net()
    x = net.conv(net.input("x", 1, 3, 11, 13), 3, 8)
    s = net("GlobalAveragePool", x)
    s = net("Sigmoid", net.conv(net("Relu", net.conv(s, 8, 2, 1)), 2, 8, 1))
    return net.model(net.conv(net("Mul", x, s), 8, 5))


def squeeze_excite_by_reshape() -> ModelProto:
    net = Net()
    x = net.conv(net.input("x", 1, 3, 11, 13), 3, 8)
    s = net("Reshape", net("GlobalAveragePool", x), np.array([1, -1]))
    s = net("Relu", net("Gemm", s, net.weights(2, 8), net.weights(2), transB=1))
    s = net("Sigmoid", net("Gemm", s, net.weights(8, 2), net.weights(8), transB=1))
    s = net("Reshape", s, np.array([1, 8, 1, 1]))
    return net.model(net.conv(net("Mul", x, s), 8, 5))


def pyramid() -> ModelProto:
    net = Net()
    a = net("Relu", net.conv(net.input("x", 1, 3, 12, 20), 3, 6))
    b = net("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
    b = net("Relu", net.conv(b, 6, 4))
    up = net("Resize", b, "", np.array([1, 1, 2, 2], np.float32), mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    return net.model(net.conv(net("Concat", up, a, axis=1), 10, 5), net.conv(b, 4, 7, 1))


def wider() -> ModelProto:
    """Of a picture only the columns, then only the rows get more."""
    net = Net()
    x = net.conv(net.input("x", 1, 3, 5, 7), 3, 4)
    for scales in ((1, 1, 1, 2), (1, 1, 2, 1)):
        x = net("Resize", x, "", np.array(scales, np.float32), mode="linear")
    return net.model(net.conv(x, 4, 6))


def focus() -> ModelProto:
    net = Net()
    x = net.input("x", 1, 3, 10, 14)
    parts = []
    for w in (0, 1):
        for h in (0, 1):
            rows = net("Slice", x, np.array([h]), np.array([2**31 - 1]), np.array([2]), np.array([2]))
            parts.append(net("Slice", rows, np.array([w]), np.array([2**31 - 1]), np.array([3]), np.array([2])))
    return net.model(net.conv(net("Concat", *parts, axis=1), 12, 5))


def split_and_join() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 11, 13), 3, 10))
    a, b = net("Split", x, np.array([4, 6]), axis=1, outputs=2)
    return net.model(net.conv(net("Concat", b, net("Relu", net.conv(a, 4, 4)), axis=1), 10, 5, 1))


def _shuffled(net: Net, x: str, shape: tuple[int, ...], groups: int) -> str:
    n, c, h, w = shape
    x = net("Reshape", x, np.array([n, groups, c // groups, h, w]))
    return str(net("Reshape", net("Transpose", x, perm=[0, 2, 1, 3, 4]), np.array([n, -1, h, w])))


def channel_shuffle() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 11, 13), 3, 4))
    y = net("Relu", net.conv(x, 4, 4, 1))
    x = _shuffled(net, net("Concat", x, y, axis=1), (1, 8, 11, 13), 2)
    a, b = net("Split", x, np.array([4, 4]), axis=1, outputs=2)
    x = net("Concat", a, net("Relu", net.conv(b, 4, 4)), axis=1)
    return net.model(net.conv(x, 8, 5, 1))


def channel_shuffle_behind_conv() -> ModelProto:
    net = Net()
    x = net.conv(net.input("x", 1, 3, 11, 13), 3, 12, 1)
    return net.model(net.conv(_shuffled(net, x, (1, 12, 11, 13), 3), 12, 12, group=12))


def channel_shuffle_by_gather() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 10, 14), 3, 8))
    y = net("Reshape", x, np.array([4, 2, 140]))
    y = net("Reshape", net("Transpose", y, perm=[1, 0, 2]), np.array([2, -1, 4, 10, 14]))
    a, b = net("Gather", y, np.array(0), axis=0), net("Gather", y, np.array(1), axis=0)
    return net.model(net.conv(net("Concat", a, net("Relu", net.conv(b, 4, 4)), axis=1), 8, 5, 1))


def classifier() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 11, 13), 3, 8))
    x = net("Flatten", net("GlobalAveragePool", x))
    return net.model(net("Softmax", net("Gemm", x, net.weights(7, 8), net.weights(7), transB=1), axis=1))


def classifier_by_mean() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 11, 13), 3, 8))
    x = net("ReduceMean", x, axes=[2, 3], keepdims=0)
    return net.model(net("Add", net("MatMul", x, net.weights(8, 7)), net.weights(7)))


def flatten_mixes_axes() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 2, 3, 5, 7), 3, 4))
    x = net("Flatten", net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    return net.model(net("Gemm", x, net.weights(9, 24), net.weights(9), transB=1))


def picture_from_vector() -> ModelProto:
    net = Net()
    x = net("Relu", net("Gemm", net.input("x", 1, 6), net.weights(60, 6), net.weights(60), transB=1))
    x = net("Reshape", x, np.array([1, 4, 3, 5]))
    return net.model(net.conv(x, 4, 7))


def detector_head() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 12, 20), 3, 8))
    y = net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    scores, boxes = [], []
    for level in (x, y):
        for found, width in ((scores, 2), (boxes, 4)):
            z = net("Transpose", net.conv(level, 8, 3 * width), perm=[0, 2, 3, 1])
            found.append(net("Reshape", z, np.array([1, -1, width])))
    return net.model(net("Softmax", net("Concat", *scores, axis=1), axis=2), net("Concat", *boxes, axis=1))


def yolox_head() -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 12, 20), 3, 8))
    y = net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    flat = []
    for level in (x, y):
        z = net("Concat", net.conv(level, 8, 4, 1), net("Sigmoid", net.conv(level, 8, 3, 1)), axis=1)
        flat.append(net("Reshape", z, np.array([1, 7, -1])))
    return net.model(net("Transpose", net("Concat", *flat, axis=2), perm=[0, 2, 1]))


def pixel_shuffle(channels: int = 3) -> ModelProto:
    net = Net()
    x = net("Relu", net.conv(net.input("x", 1, 3, 5, 7), 3, 4))
    x = net("Reshape", net.conv(x, 4, channels * 4), np.array([1, channels, 2, 2, 5, 7]))
    x = net("Transpose", x, perm=[0, 1, 4, 2, 5, 3])
    return net.model(net("Reshape", x, np.array([1, channels, 10, 14])))


def pixel_shuffle_gray() -> ModelProto:
    return pixel_shuffle(1)


def pixel_unshuffle() -> ModelProto:
    net = Net()
    x = net("Reshape", net.input("x", 1, 3, 10, 14), np.array([1, 3, 5, 2, 7, 2]))
    x = net("Reshape", net("Transpose", x, perm=[0, 1, 3, 5, 2, 4]), np.array([1, 12, 5, 7]))
    return net.model(net.conv(x, 12, 5))


def from_tensorflow() -> ModelProto:
    net = Net()
    x = net("Transpose", net.input("x", 1, 11, 13, 3), perm=[0, 3, 1, 2])
    x = net("PRelu", net.conv(x, 3, 6), net.weights(6, 1, 1))
    y = net("Pad", net("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), np.array([0, 0, 0, 0, 0, 2, 0, 0]))
    x = net("Relu", net("Add", net.conv(x, 6, 8, strides=[2, 2], pads=[0, 0, 1, 1], kernel=3), y))
    head = net("Reshape", net("Transpose", net.conv(x, 8, 4), perm=[0, 2, 3, 1]), np.array([1, -1, 2]))
    picture = net("Transpose", net.conv(x, 8, 3), perm=[0, 2, 3, 1])
    return net.model(head, net("Sigmoid", picture), producer="tf2onnx")


def padded() -> ModelProto:
    net = Net()
    x = net("Pad", net.input("x", 1, 3, 11, 13), np.array([0, 0, 1, 2, 0, 0, 3, 0]))
    x = net("Relu", net.conv(x, 3, 5, pads=[0, 0, 0, 0]))
    x = net("Pad", x, np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(-np.inf))
    return net.model(net("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]))


def hard_swish() -> ModelProto:
    net = Net()
    x = net.conv(net.input("x", 1, 3, 11, 13), 3, 6)
    gate = net("Clip", net("Add", x, np.float32(3)), np.float32(0), np.float32(6))
    return net.model(net.conv(net("Div", net("Mul", x, gate), np.float32(6)), 6, 5))


def group_norm_by_reshape() -> ModelProto:
    """As PyTorch and Paddle export a group normalisation."""
    net = Net()
    x = net.conv(net.input("x", 1, 3, 7, 9), 3, 10)
    y = net("Reshape", x, np.array([0, 5, -1], np.int64))
    y = net("InstanceNormalization", y, np.float32([1, 2, 1, 1, 0.5]), np.float32([0, 0, 0.3, 0, 0]), epsilon=1e-2)
    y = net("Reshape", y, np.array([1, 10, 7, 9], np.int64))
    return net.model(net("Relu", net("Add", y, x)))


def one_dimensional() -> ModelProto:
    """Speech networks: convolutions of one axis with batch normalisation, a residual and a pool."""
    net = Net()
    x, channels = net("Transpose", net.input("x", 1, 22, 3), perm=[0, 2, 1]), 3
    for width in (8, 8):
        x = net("Conv", x, net.weights(width, channels, 3), pads=[1, 1])
        statistics = [net.constant(np.linspace(a, b, width, dtype=np.float32)) for a, b in ((1, 2), (0, 1), (-1, 1))]
        x = net("Relu", net("BatchNormalization", x, *statistics, net.constant(np.full(width, 0.5, np.float32))))
        channels = width
    y = net("Conv", x, net.weights(8, 1, 5), net.weights(8), pads=[2, 2], group=8)
    x = net("MaxPool", net("Add", x, y), kernel_shape=[2], strides=[2])
    x = net("ConvTranspose", x, net.weights(8, 6, 4), net.weights(6), pads=[1, 1], strides=[2])
    return net.model(net("ReduceMean", net("Relu", x), axes=[2], keepdims=0))


def volumes() -> ModelProto:
    """Networks for video and tomography: convolutions, pools and transposed convolutions of three axes."""
    net = Net()
    x = net("Transpose", net.input("x", 1, 4, 10, 14, 3), perm=[0, 4, 1, 2, 3])
    x = net("Relu", net("Conv", x, net.weights(6, 3, 3, 3, 3), net.weights(6), pads=[1] * 6))
    y = net("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    y = net("Relu", net("Conv", y, net.weights(8, 6, 2, 3, 3), net.weights(8), pads=[1, 1, 1, 0, 1, 1]))
    y = net("ConvTranspose", y, net.weights(8, 6, 2, 2, 2), net.weights(6), strides=[2, 2, 2])
    x = net("Concat", x, y, axis=1)
    x = net("AveragePool", x, kernel_shape=[2, 3, 3], strides=[2, 1, 1], pads=[0, 1, 1, 0, 1, 1])
    return net.model(net("Transpose", x, perm=[0, 2, 3, 4, 1]))


def shapes_at_run_time() -> ModelProto:
    """The Shape → Gather → Unsqueeze → Concat → Reshape that PyTorch writes for x.view(x.size(0), -1, 2)."""
    net = Net(opset=11)
    x = net("Transpose", net.conv(net.input("x", 1, 3, 6, 10), 3, 8), perm=[0, 2, 3, 1])
    batch = net("Gather", net("Shape", x), np.array(0), axis=0)
    parts = [
        net("Unsqueeze", part, axes=[0]) for part in (batch, net.constant(np.array(-1)), net.constant(np.array(2)))
    ]
    return net.model(net("Reshape", x, net("Concat", *parts, axis=0)))


SNIPPETS: dict[str, Callable[[], ModelProto]] = {
    function.__name__: function
    for function in (
        conv_chain,
        residual,
        batch_norm_unfolded,
        squeeze_excite_by_conv,
        squeeze_excite_by_reshape,
        pyramid,
        wider,
        focus,
        split_and_join,
        channel_shuffle,
        channel_shuffle_behind_conv,
        channel_shuffle_by_gather,
        classifier,
        classifier_by_mean,
        flatten_mixes_axes,
        picture_from_vector,
        detector_head,
        yolox_head,
        pixel_shuffle,
        pixel_shuffle_gray,
        pixel_unshuffle,
        from_tensorflow,
        padded,
        hard_swish,
        group_norm_by_reshape,
        one_dimensional,
        volumes,
        shapes_at_run_time,
    )
}
