"""Layers of Keras, each behind what it usually stands behind: name → what is done to the input of a group. TensorFlow
must be importable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

L = keras.layers
Row = Callable[[Any], Any]


@keras.saving.register_keras_serializable("sgs")
class DepthToSpace(L.Layer):  # type: ignore[misc]
    """TensorFlow's operator as a layer."""

    def call(self, x: Any) -> Any:
        return tf.nn.depth_to_space(x, 2)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], shape[1] * 2, shape[2] * 2, shape[3] // 4)


def conv(channels: int = 5, **options: Any) -> Any:
    return L.Conv2D(channels, 3, padding="same", **options)


def after(*layers: Any, channels: int = 5) -> Row:
    """The layers behind a convolution."""
    return lambda x: chain(conv(channels), *layers)(x)


def chain(*layers: Any) -> Row:
    def apply(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return apply


def between(*layers: Any, channels: int = 5) -> Row:
    """The layers between two convolutions."""
    return after(*layers, conv(4), channels=channels)


def activation(name: str) -> Row:
    return after(L.Activation(name))


def squeeze_excite(x: Any) -> Any:
    scale = L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D()(x))
    return L.Multiply()([conv(4)(x), L.Reshape((1, 1, 4))(scale)])


def squeeze_excite_kept(x: Any) -> Any:
    scale = L.Conv2D(4, 1, activation="hard_sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    return L.Multiply()([conv(4)(x), scale])


def u_net(x: Any) -> Any:
    wide = conv(4, activation="relu")(x)
    middle = conv(8, activation="relu")(L.MaxPooling2D(2)(wide))
    deep = conv(8, activation="relu")(L.MaxPooling2D(2)(middle))
    up = conv(4)(L.Concatenate()([L.Conv2DTranspose(8, 2, strides=2)(deep), middle]))
    up = L.Concatenate()([L.UpSampling2D(2, interpolation="bilinear")(up), wide])
    return L.Conv2D(1, 1, activation="sigmoid")(up)


def shuffle(x: Any) -> Any:
    split = L.Reshape((8, 12, 2, 3))(conv(6)(x))
    return conv()(L.Reshape((8, 12, 6))(L.Permute((1, 2, 4, 3))(split)))


# input [1, 8, 12, 4]: none of these leaves a Transpose
PICTURES: dict[str, Row] = {
    "conv": L.Conv2D(6, (3, 2)),
    "conv_same": L.Conv2D(6, 3, padding="same", activation="relu"),
    "conv_strides": L.Conv2D(6, 3, strides=2, padding="same"),
    "conv_two_strides": L.Conv2D(6, 3, strides=(2, 1)),
    "conv_dilated": L.Conv2D(6, 3, dilation_rate=2, padding="same"),
    "conv_dilated_valid": L.Conv2D(6, 3, dilation_rate=(2, 3)),
    "conv_groups": L.Conv2D(6, 3, groups=2, padding="same"),
    "conv_no_bias": L.Conv2D(6, 3, use_bias=False),
    "conv_plus_number": chain(L.Conv2D(6, 3, use_bias=False), lambda x: L.ReLU(6.0)(x + 3.0)),
    "depthwise": L.DepthwiseConv2D(3, padding="same"),
    "depthwise_multiplier": L.DepthwiseConv2D(3, depth_multiplier=3),
    "depthwise_strides": L.DepthwiseConv2D(3, strides=2, padding="same"),
    "depthwise_dilated": L.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
    "separable": L.SeparableConv2D(7, 3, padding="same"),
    "transposed": L.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "transposed_valid": L.Conv2DTranspose(5, (3, 4), strides=(2, 3)),
    "transposed_dilated": L.Conv2DTranspose(5, 3, dilation_rate=2, padding="same"),
    "max_pool": after(L.MaxPooling2D(2)),
    "max_pool_same": after(L.MaxPooling2D(3, strides=2, padding="same")),
    "average_pool": after(L.AveragePooling2D(2)),
    "average_pool_same": after(L.AveragePooling2D(3, strides=2, padding="same")),
    "global_average": after(L.GlobalAveragePooling2D()),
    "global_average_kept": after(L.GlobalAveragePooling2D(keepdims=True), L.Conv2D(3, 1)),
    "global_max": after(L.GlobalMaxPooling2D()),
    "batch_norm": after(L.BatchNormalization(), L.ReLU()),
    "batch_norm_first": chain(L.BatchNormalization(), conv()),
    "prelu": after(L.PReLU(alpha_initializer="uniform", shared_axes=[1, 2])),
    "prelu_whole": between(L.PReLU(alpha_initializer="uniform")),
    "leaky_relu": after(L.LeakyReLU(negative_slope=0.2)),
    "elu": after(L.ELU()),
    "relu6": after(L.ReLU(6.0)),
    "relu_general": after(L.ReLU(6.0, negative_slope=0.1, threshold=0.2)),
    **{name: activation(name) for name in ("selu", "swish", "hard_swish", "hard_sigmoid", "gelu", "mish", "softplus")},
    **{name: activation(name) for name in ("softsign", "tanh", "sigmoid", "exponential", "relu6")},
    "up_nearest": between(L.UpSampling2D(2)),
    "up_nearest_first": L.UpSampling2D((3, 2)),
    "up_bilinear": between(L.UpSampling2D(2, interpolation="bilinear")),
    "up_bilinear_first": L.UpSampling2D(2, interpolation="bilinear"),
    "zero_padding": chain(L.ZeroPadding2D(((1, 2), (3, 0))), L.Conv2D(5, 3)),
    "zero_padding_pool": between(L.ReLU(), L.ZeroPadding2D(1), L.MaxPooling2D(3, 2)),
    "cropping": between(L.Cropping2D(((1, 2), (2, 1)))),
    "reshape": after(L.Reshape((8 * 12, 5))),
    "reshape_channels": after(L.Reshape((8, 12, 3, 2)), channels=6),
    "reshape_and_back": between(L.Reshape((8 * 12, 5)), L.Reshape((8, 12, 5))),
    "flatten": after(L.Flatten()),
    "flatten_dense": after(L.MaxPooling2D(3), L.Flatten(), L.Dense(7)),
    "dense_on_pixels": between(L.Dense(7)),
    "softmax": after(L.Softmax()),
    "layer_norm": between(L.LayerNormalization()),
    "group_norm": between(L.GroupNormalization(3), channels=6),
    "resizing": chain(L.Resizing(14, 20), conv()),
    "resizing_nearest": chain(L.Resizing(14, 20, interpolation="nearest"), conv()),
    "rescaling": chain(L.Rescaling(1 / 127.5, offset=-1.0), conv()),
    "normalization": chain(L.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 1, 4]), conv()),
    "center_crop": chain(L.CenterCrop(5, 6), conv()),
    "dropout": between(L.Dropout(0.3), L.SpatialDropout2D(0.2), L.GaussianNoise(0.1)),
    "add": lambda x: L.Add()([conv()(x), conv()(x)]),
    "subtract": lambda x: L.Subtract()([conv()(x), conv()(x)]),
    "average": lambda x: L.Average()([conv()(x), conv()(x)]),
    "maximum": lambda x: L.Maximum()([conv()(x), conv()(x)]),
    "minimum": lambda x: L.Minimum()([conv()(x), conv()(x)]),
    "concatenate": lambda x: conv()(L.Concatenate()([conv()(x), x])),
    "concatenate_rows": lambda x: conv()(L.Concatenate(axis=1)([conv(4)(x), x])),
    "squeeze_excite": squeeze_excite,
    "squeeze_excite_kept": squeeze_excite_kept,
    "depth_to_space": between(DepthToSpace(), channels=12),
    "channel_shuffle": shuffle,
    "slices": lambda x: conv()(conv()(x)[:, 1:7, ::2, :]),
    "mean_of_pixels": lambda x: keras.ops.mean(conv()(x) * 2 + 1, axis=(1, 2)),
    "u_net": u_net,
}

# input [1, 7, 6]: none of these leaves a Transpose
SEQUENCES: dict[str, Row] = {
    "conv1d": L.Conv1D(5, 3, padding="same"),
    "conv1d_causal": L.Conv1D(5, 3, padding="causal", dilation_rate=2),
    "separable1d": L.SeparableConv1D(5, 3, padding="same"),
    "depthwise1d": L.DepthwiseConv1D(3, padding="same"),
    "transposed1d": L.Conv1DTranspose(5, 3, strides=2, padding="same"),
    "max_pool1d": L.MaxPooling1D(2),
    "average_pool1d": L.AveragePooling1D(3, 2, padding="same"),
    "global_average1d": L.GlobalAveragePooling1D(),
    "up1d": L.UpSampling1D(2),
    "dense": L.Dense(5),
    "layer_norm": L.LayerNormalization(),
    "rms_norm": L.RMSNormalization(),
    "unit_norm": L.UnitNormalization(),
    "lstm": L.LSTM(5),
    "lstm_sequences": chain(L.LSTM(5, return_sequences=True), L.Dense(3)),
    "lstm_backwards": L.LSTM(5, go_backwards=True),
    "gru": L.GRU(5),
    "gru_reset_before": L.GRU(5, reset_after=False, return_sequences=True),
    "simple_rnn": L.SimpleRNN(5),
    "bidirectional": L.Bidirectional(L.LSTM(5, return_sequences=True)),
    "flatten_repeat": chain(L.Flatten(), L.Dense(4), L.RepeatVector(3)),
}

# the same input: attention turns heads and positions, (Transposes that are left)
TURNING: dict[str, tuple[Row, int]] = {
    "attention": (lambda x: L.Attention()([L.Dense(6)(x), x]), 0),
    "additive_attention": (lambda x: L.AdditiveAttention()([L.Dense(6)(x), x]), 0),
    "multi_head": (lambda x: L.MultiHeadAttention(2, 8)(x, x), 4),
    "permute": (chain(L.Dense(4), L.Permute((2, 1)), L.Dense(3)), 1),
}
GROUPS = {"pictures": ((8, 12, 4), PICTURES), "sequences": ((7, 6), SEQUENCES), "turning": ((7, 6), TURNING)}


def group(name: str) -> Any:
    """A model of one input and an output for every row, called by its name with "_out"; weights are random."""
    shape, rows = GROUPS[name]
    keras.utils.set_random_seed(5)
    x = keras.Input(shape, name="x")
    results = [row[0](x) if isinstance(row, tuple) else row(x) for row in rows.values()]
    named = [L.Identity(name=f"{key}_out")(result) for key, result in zip(rows, results, strict=True)]
    model = keras.Model(x, named)
    for weight in model.weights:
        if weight.path.endswith(("bias", "beta", "moving_mean")):
            weight.assign(keras.random.uniform(weight.shape, -0.5, 0.5))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(keras.random.uniform(weight.shape, 0.5, 2))
    return model
