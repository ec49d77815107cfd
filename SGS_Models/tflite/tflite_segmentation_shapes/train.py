"""Train the segmentation network ``tflite_segmentation_shapes.tflite`` and convert it.

An encoder of depthwise separable convolutions, each level half the size of the one above, and a decoder that enlarges
again and adds what the encoder saw at that size. Every training picture is rendered once by ``resource/render.py``
and never seen again.

Needs tensorflow, ai-edge-litert, opencv-python-headless and numpy. Run ``python train.py``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # before tensorflow: its results depend on the threads

import keras
import numpy as np
import tensorflow as tf

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "resource"))

import render  # noqa: E402
from evaluate import score  # noqa: E402
from keras_training import Pictures, frozen, options, train  # noqa: E402
from runners import with_litert  # noqa: E402
from tflite_segmentation_shapes import MEAN, STD  # noqa: E402

WIDTHS = (16, 32, 48, 64)
"""Channels at a half, a quarter, an eighth and a sixteenth of the picture's size."""


def separable(x: keras.KerasTensor, channels: int, stride: int = 1) -> keras.KerasTensor:
    """Depthwise 3x3 and dense 1x1 convolution, each normalised and followed by ReLU6."""
    x = keras.layers.DepthwiseConv2D(3, stride, "same", use_bias=False)(x)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Conv2D(channels, 1, use_bias=False)(x)
    return keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))


def build() -> keras.Model:
    """Network from normalised pictures [B, 128, 128, 3] to class logits of every pixel [B, 128, 128, 5]."""
    images = keras.Input((render.SHAPE_SIZE, render.SHAPE_SIZE, 3), name="images")
    x = keras.layers.Conv2D(WIDTHS[0], 3, 2, "same", use_bias=False)(images)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))
    levels = [separable(x, WIDTHS[0])]
    for width in WIDTHS[1:]:
        levels.append(separable(separable(levels[-1], width, 2), width))
    x = separable(levels.pop(), WIDTHS[-1])
    for level, width in zip(levels[::-1], WIDTHS[-2::-1], strict=True):
        x = keras.layers.Conv2D(width, 1)(x)
        x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
        x = separable(keras.layers.Add()([x, level]), width)
    x = keras.layers.Conv2D(len(render.SHAPE_NAMES) + 1, 1)(x)
    return keras.Model(images, keras.layers.UpSampling2D(2, interpolation="bilinear", name="logits")(x))


def sample(scene: render.ShapeScene) -> tuple[np.ndarray, np.ndarray]:
    """Normalised picture and class of every pixel."""
    return (scene.image.astype(np.float32) - MEAN) / STD, scene.mask.astype(np.int64)


def write_tflite(model: keras.Model, path: Path) -> None:
    """Write the network in float32 with a batch of 1. The converter calls its output ``Identity``."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen(model, "logits")])
    path.write_bytes(converter.convert())


def main() -> None:
    """Train, convert and measure the network."""
    chosen = options(argparse.ArgumentParser(description=__doc__.splitlines()[0]), HERE / f"{HERE.name}.tflite", 24)
    model = build()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    train(model, loss, Pictures(sample, chosen.epochs), learning_rate=5e-3)
    write_tflite(model, chosen.output)
    print(f"test mean IoU {score(with_litert(chosen.output)):.4f}")


if __name__ == "__main__":
    main()
