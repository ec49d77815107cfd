"""Train the super-resolution network ``tensorflow_fsrcnn_shapes.pb`` and write it, also as Keras and as SavedModel.

Convolutions at the size of the input, most of them on few channels, and a transposed one that doubles the size; what
they find is added to the input enlarged bilinearly. (Dong et al., Accelerating the Super-Resolution Convolutional
Neural Network, 2016.) Every training picture is rendered once by ``resource/render.py`` and never seen again.

Needs tensorflow, opencv-python-headless and numpy. Run ``python train.py``.
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
from evaluate import bicubic, score  # noqa: E402
from keras_training import Pictures, frozen, options, train  # noqa: E402
from runners import with_tensorflow  # noqa: E402
from tensorflow_fsrcnn_shapes import INPUT_HEIGHT, INPUT_WIDTH, MEAN, STD, shrink  # noqa: E402

FEATURES, SHRUNK, MAPPINGS = 24, 12, 3
"""Channels behind the first convolution and before the last one, channels between, and convolutions there."""


def conv(x: keras.KerasTensor, channels: int, kernel: int) -> keras.KerasTensor:
    """Convolution with "same" padding, and a PReLU of one slope a channel."""
    x = keras.layers.Conv2D(channels, kernel, padding="same", kernel_initializer="he_normal")(x)
    return keras.layers.PReLU(keras.initializers.Constant(0.25), shared_axes=[1, 2])(x)


def build() -> keras.Model:
    """Network from pictures [B, 64, 64, 3] in 0..1 to twice their size."""
    images = keras.Input((INPUT_HEIGHT, INPUT_WIDTH, 3), name="images")
    x = conv(conv(images, FEATURES, 5), SHRUNK, 1)
    for _ in range(MAPPINGS):
        x = conv(x, SHRUNK, 3)
    x = conv(x, FEATURES, 1)
    fine = keras.layers.Conv2DTranspose(3, 6, 2, "same", kernel_initializer="zeros")(x)
    coarse = keras.layers.UpSampling2D(2, interpolation="bilinear")(images)
    return keras.Model(images, keras.layers.Add(name="enlarged")([coarse, fine]))


def sample(scene: render.ShapeScene) -> tuple[np.ndarray, np.ndarray]:
    """Shrunk picture and the whole one, normalised alike."""
    small, whole = ((image.astype(np.float32) - MEAN) / STD for image in (shrink(scene.image), scene.image))
    return small, whole


def write_graph(model: keras.Model, path: Path) -> None:
    """Write the network as a frozen GraphDef with a batch of 1, its nodes ``images`` and ``enlarged``."""
    graph = frozen(model, "enlarged").graph.as_graph_def()
    wanted = tf.compat.v1.graph_util.extract_sub_graph(graph, ["enlarged"])
    wanted.ClearField("library")
    path.write_bytes(wanted.SerializeToString(deterministic=True))


def write_saved_model(model: keras.Model, folder: Path) -> None:
    """Write the network as a SavedModel whose signature ``serving_default`` has the same names."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    port = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="images")
    archive.add_endpoint("serve", lambda images: {"enlarged": model(images, training=False)}, [port])
    archive.write_out(str(folder), verbose=False)


def main() -> None:
    """Train, write and measure the network."""
    chosen = options(argparse.ArgumentParser(description=__doc__.splitlines()[0]), HERE / f"{HERE.name}.pb", 12)
    trained, model = build(), build()
    train(trained, keras.losses.MeanSquaredError(), Pictures(sample, chosen.epochs), learning_rate=4e-3)
    model.set_weights(trained.get_weights())  # and leaves the optimiser behind
    write_graph(model, chosen.output)
    model.save(chosen.output.with_suffix(".keras"))
    write_saved_model(model, chosen.output.with_name("saved_model"))
    written = with_tensorflow(chosen.output, "images", "enlarged")
    print(f"test PSNR {score(written):.4f}, bicubic {score(bicubic):.4f}")


if __name__ == "__main__":
    main()
