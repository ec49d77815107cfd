"""Training of the networks on shapes in Keras: Adam, one cycle, every picture drawn once.

Needs tensorflow, opencv-python-headless and numpy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import render
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

BATCH = 16
STEPS = 64
"""Batches of an epoch."""


@dataclass
class Pictures:
    """What a network is trained on: `sample` makes its input and what it is to answer out of a scene."""

    sample: Callable[[render.ShapeScene], tuple[np.ndarray, np.ndarray]]
    epochs: int

    def batch(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Render a batch."""
        first = step * BATCH
        seeds = [render.generator(render.SHAPE_FAMILY, "train", epoch, first + i) for i in range(BATCH)]
        inputs, targets = zip(*(self.sample(render.render_shapes(seed)) for seed in seeds), strict=True)
        return np.stack(inputs), np.stack(targets)


def options(parser: argparse.ArgumentParser, output: Path, epochs: int) -> argparse.Namespace:
    """Options of the program; seeds every generator and sets the threads, before a network is built."""
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; 1 gives repeatable weights")
    parser.add_argument("--output", type=Path, default=output)
    chosen = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(chosen.threads)
    tf.config.threading.set_inter_op_parallelism_threads(chosen.threads)
    keras.utils.set_random_seed(chosen.seed)
    tf.config.experimental.enable_op_determinism()
    return chosen


def frozen(model: keras.Model, result: str) -> Any:
    """The network as a function of one picture of the input ``images``, its weights constants, its output named."""
    port = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="images")
    function = tf.function(lambda images: tf.identity(model(images, training=False), name=result))
    return convert_variables_to_constants_v2(function.get_concrete_function(port))


def train(model: keras.Model, loss: keras.losses.Loss, pictures: Pictures, learning_rate: float) -> None:
    """Train ``model`` in place; the learning rate rises over a tenth of the run and falls along a cosine."""
    total = pictures.epochs * STEPS
    rise = max(1, total // 10)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, total - rise, warmup_target=learning_rate, warmup_steps=rise)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-3), loss)
    for epoch in range(pictures.epochs):
        losses = [model.train_on_batch(*pictures.batch(epoch, step)) for step in range(STEPS)]
        print(f"epoch {epoch + 1}/{pictures.epochs} loss {float(losses[-1]):.4f}", flush=True)
