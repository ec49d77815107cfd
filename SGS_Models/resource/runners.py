"""Sample networks as functions, whoever runs them: the framework that a network comes from, or this toolchain.

Needs numpy, and of the frameworks the one whose function is called.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parents[2] / "Scripts"
Run = Callable[[np.ndarray], np.ndarray]
"""The one input of a network to its first output, both channels last."""
Score = Callable[[Run, bool], float]
"""What a network scores on the test pictures; the second argument is the ``norm`` of its ``image_preprocess``: True for
float networks, False where the normalisation is inside."""
SIMULATORS = {"Float": "float_simulator", "Fixed": "fixed_simulator", "Offline": "offline_simulator"}


def channels_first(image: np.ndarray) -> np.ndarray:
    """NHWC to NCHW."""
    return np.ascontiguousarray(image.transpose(0, 3, 1, 2))


def channels_last(value: np.ndarray) -> np.ndarray:
    """NCHW to NHWC; other ranks as they are."""
    return value.transpose(0, 2, 3, 1) if value.ndim == 4 else value


def with_onnxruntime(path: Path) -> Run:
    """An ``.onnx`` of channels first."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    return lambda image: channels_last(session.run(None, {port.name: channels_first(image)})[0])


def with_torch(path: Path) -> Run:
    """A ``.pt2`` of channels first."""
    import torch

    module = torch.export.load(path).module()

    def run(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return channels_last(module(torch.from_numpy(channels_first(image))).numpy())

    return run


def with_litert(path: Path) -> Run:
    """A ``.tflite``."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (port,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(port["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


def with_tensorflow(path: Path, source: str, result: str) -> Run:
    """A frozen ``.pb``, from one node to another."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef.FromString(path.read_bytes())

    def imported(images: tf.Tensor) -> tf.Tensor:
        return tf.graph_util.import_graph_def(definition, {source: images}, [f"{result}:0"])[0]

    shape = next(node for node in definition.node if node.name == source).attr["shape"].shape
    port = tf.TensorSpec([extent.size for extent in shape.dim], tf.float32)
    function = tf.function(imported, autograph=False).get_concrete_function(port)
    return lambda image: function(tf.constant(image)).numpy()


def with_caffe(prototxt: Path, caffemodel: Path, config: Path) -> Run:
    """Caffe's two files, as this toolchain converts them to a float model: no Caffe installs any more."""
    program = SCRIPTS / "ConvertTool" / "ConvertTool.py"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "network_float.sim"
        files = ["--model_file", prototxt, "--weight_file", caffemodel, "--input_config", config]
        options = [*files, "--output_file", target, "--soc_version", "pcupid"]
        subprocess.run([sys.executable, program, "caffe", *options], check=True, stdout=subprocess.DEVNULL)
        return with_simulator(target, "Float")


def with_simulator(path: Path, kind: str) -> Run:
    """A ``.sim`` or ``.img`` with one input, fed as its ``input_config.ini`` says; `kind`: one of ``SIMULATORS``."""
    sys.path.insert(1, str(SCRIPTS))
    import calibrator_custom
    from calibrator_custom import utils

    model = getattr(calibrator_custom, SIMULATORS[kind])(str(path))
    (port,) = model.get_input_details()

    def run(image: np.ndarray) -> np.ndarray:
        model.set_input(0, image if kind == "Float" else utils.convert_to_input_formats(image, port))
        model.invoke()
        return model.get_output(0)

    return run


def evaluate(name: str, score: Score, source: Callable[[], Run]) -> None:
    """Be the program that measures a network: its source, run by the framework, or what was made of it.

    Args:
        name: of the score.
        score: measures it.
        source: opens the source.
    """
    parser = argparse.ArgumentParser(description=f"Print the {name} of the network on the test pictures.")
    parser.add_argument("-m", "--model", type=Path, help="a .sim or .img made of it (default: the source itself)")
    parser.add_argument("-t", "--type", choices=list(SIMULATORS), default="Float", help="what -m is (default: Float)")
    options = parser.parse_args()
    try:
        run = source() if options.model is None else with_simulator(options.model, options.type)
    except ValueError as error:
        parser.error(str(error))
    print(f"{name} {score(run, options.model is None or options.type == 'Float'):.4f}")
