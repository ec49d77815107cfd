"""The public Caffe, TFLite and TensorFlow networks, and the sets of arrays that some of them read instead of pictures.

A set is arrays as the network's input takes them (pictures before normalisation), with classes where there are any.
"""

from __future__ import annotations

import sys
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from judges import LiteRt, mfcc_of_waves
from networks import HALF, Network, Picture, data_folder

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from caffe_cases import weight_file
from caffe_random import random_weights
from opencv_caffe import named

Sets = tuple[np.ndarray, np.ndarray]  # [n, *shape of the input] of samples, [n] of their classes
Platform = Literal["caffe", "tflite", "tensorflow_graphdef"]
CALIBRATING = 32  # samples, of networks without a split of their own
SCORING = 128
CHIP = "pcupid"
TINY = "images/mlperf_tiny_sets"
F32, S16 = "RAWDATA_F32_NHWC", "RAWDATA_S16_NHWC"

_ARRAY_SCRIPT = '''"""Preprocess script of {name}."""
import numpy as np


def image_preprocess(path, norm=True):
    """The array of a file, uint8 pictures normalised: (x - {mean}) / {std}."""
    array = np.load(path)
    if norm and array.dtype == np.uint8:
        return ((array - np.array({mean})) / np.array({std})).astype(np.float32)
    return array
'''


BOTH = frozenset({"inputs", "outputs"})


@dataclass(frozen=True)
class SourceNetwork(Network):
    """One network of a framework.

    `weights`: the second file of a Caffe network, None where only its structure is known, which then gets weights at
    random; `options`: further ones of ConvertTool; `arrays`: of SETS, instead of pictures; `also`: folders of pictures
    that score beside those that the split gives; `nchw`: on which sides, inputs and outputs, those of rank 4
    are NCHW in the framework;
    `integers`: the file holds some, for which LiteRT rounds activations, too; `reference`: an 8-bit version of the
    network by other people; `peers_split`: calibrate and score on all of the pictures that peers do; `opencv`: a
    description of a TensorFlow graph for OpenCV 4, which then judges it.
    """

    platform: Platform = "tflite"
    weights: str | None = None
    options: tuple[str, ...] = ()
    arrays: str | None = None
    also: tuple[str, ...] = ()
    nchw: frozenset[str] = frozenset()
    integers: bool = False
    reference: str | None = None
    peers_split: bool = False
    opencv: str | None = None

    def split(self, scratch: Path) -> tuple[list[Picture], list[Picture]]:
        """As in Network, at most CALIBRATING and SCORING of them, spread over all."""
        if self.arrays is not None:
            samples = _written(*SETS[self.arrays](), scratch)
            calibrating, scored = samples[::5], [sample for index, sample in enumerate(samples) if index % 5]
        else:
            calibrating, scored = super().split(scratch)
            further = [path for folder in self.also for path in sorted((data_folder() / folder).glob("*.jpg"))]
            scored = scored + [(path, -1) for path in further]
        if self.peers_split:
            return calibrating, scored
        return _spread(calibrating, CALIBRATING), _spread(scored, SCORING)

    def files(self, folder: Path) -> dict[str, Path]:
        """ConvertTool's options that name files, and the files, some of which are made in `folder`."""
        if self.platform != "caffe":
            return {"--graph_def_file" if self.platform == "tensorflow_graphdef" else "--model_file": self.path()}
        if self.weights is not None:
            return {"--model_file": self.path(), "--weight_file": data_folder() / self.weights}
        weights = folder / f"{self.path().stem}.caffemodel"
        weights.write_bytes(random_weights(self.path()))
        return {"--model_file": self.path(), "--weight_file": weights}

    def renamed(self, files: Mapping[str, Path], folder: Path) -> list[Path]:
        """The files of a Caffe network for OpenCV, which knows weights by the names of their layers only."""
        text = self.path().read_text("utf-8")
        weights = folder / "renamed.caffemodel"
        weights.write_bytes(weight_file(text, named(text, files["--weight_file"])))
        return [self.path(), weights]

    def arguments(self, files: Mapping[str, Path], ini: Path, target: Path) -> list[str]:
        """ConvertTool's arguments for a float .sim."""
        given = [part for option, file in files.items() for part in (option, str(file))]
        if self.shapes is not None:
            given += ["--input_shapes", ":".join(",".join(map(str, shape)) for shape in self.shapes)]
        ends = ["--input_config", str(ini), "--output_file", str(target), "--soc_version", CHIP]
        return [self.platform, *given, *self.options, *ends]

    def write_script(self, folder: Path, index: int = 0) -> Path:
        if self.arrays is None:
            return super().write_script(folder, index)
        path = folder / f"{self.name.replace('.', '_')}_preprocess.py"
        path.write_text(_ARRAY_SCRIPT.format(name=self.name, mean=list(self.mean), std=list(self.std)), "utf-8")
        return path


# -- sets --------------------------------------------------------------------------------------------------------------


def _held(name: str) -> Sets:
    with np.load(data_folder() / TINY / name) as held:
        return held["x"][:, None], held["y"]


def _words() -> Sets:
    """MFCC of spoken words, [n, 1, 49, 10, 1]."""
    with np.load(data_folder() / TINY / "kws01_mfcc_int8.npz") as held:
        reals = (held["x"].astype(np.float32) - int(held["zero_point"])) * np.float32(held["scale"])
        return reals[:, None, :, :, None], held["y"]


def _machines() -> Sets:
    """Five frames of 128 mel bands each of the sounds of machines, [n, 1, 640], 14 of every recording."""
    frames, _ = _held("ad01_40.npz")  # [40, 1, 200, 128]
    windows = [frames[:, 0, start : start + 5].reshape(-1, 1, 640) for start in range(0, 196, 14)]
    found = np.concatenate(windows, axis=1).reshape(-1, 1, 640)
    return found, np.full(len(found), -1)


def _waves(length: int) -> np.ndarray:
    """Recordings of spoken words in -1..1, [n, length]."""
    waves, _ = _held("kws01_wave16k_int16_240.npz")
    return waves[:, 0, :length].astype(np.float32) / 32768


def _of_yamnet(tensor: str) -> Sets:
    """An inner tensor of yamnet, [n, 96, bands], of the recorded words, and of what is said in the file beside the
    network, every 0.2 s."""
    folder, length = data_folder() / "tflite/yamnet", 15600
    with wave.open(str(folder / "speech.wav")) as file:
        said = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    waves = [*_waves(length)[::2], *(said[start : start + length] for start in range(0, len(said) - length, 3200))]
    network = LiteRt((folder / "yamnet.tflite").read_bytes(), inner=True)
    found = [network.run({"waveform_binary": one}, [tensor])[tensor] for one in waves]
    return np.array(found), np.full(len(found), -1)


def _mfcc(network: str) -> Sets:
    """What one of the kws_mcu networks makes of the recorded words up to its Mfcc, [n, 1, frames, coefficients]."""
    found = mfcc_of_waves(data_folder() / "tf/kws_mcu" / network, _waves(16000))
    return found[:, None], np.full(len(found), -1)


def _reviews() -> Sets:
    """Tokens of texts, int32 [n, 1, 256], drawn by Zipf's law (the vocabulary is not in the file) between the token of
    a start and the padding."""
    rng = np.random.default_rng(7)
    chances = 1 / np.arange(1, 10001)
    found = np.zeros((200, 1, 256), np.int32)
    for one in found:
        length = int(rng.integers(20, 256))
        one[0, 0] = 1
        one[0, 1 : 1 + length] = rng.choice(np.arange(3, 10003), length, p=chances / chances.sum())[: 256 - 1]
    return found, np.full(len(found), -1)


SETS: Mapping[str, Callable[[], Sets]] = {
    "ic01": lambda: _held("ic01_cifar10_200.npz"),
    "vww01": lambda: _held("vww01_200.npz"),
    "kws01": _words,
    "ad01": _machines,
    "spectra": lambda: _of_yamnet("magnitude_spectrogram"),  # behind its RFFT2D
    "log_mel": lambda: _of_yamnet("log_mel_spectrogram"),
    "reviews": _reviews,
    "DNN_M": lambda: _mfcc("DNN_M.pb"),
    "DS_CNN_S": lambda: _mfcc("DS_CNN_S.pb"),
    "LSTM_M": lambda: _mfcc("LSTM_M.pb"),
}


def _written(arrays: np.ndarray, classes: np.ndarray, folder: Path) -> list[Picture]:
    found = []
    for index, (array, label) in enumerate(zip(arrays, classes, strict=True)):
        path = folder / f"sample{index:04}.npy"
        np.save(path, array)
        found.append((path, int(label)))
    return found


def _spread(samples: list[Picture], most: int) -> list[Picture]:
    return [samples[i * len(samples) // most] for i in range(most)] if len(samples) > most else samples


# -- networks ----------------------------------------------------------------------------------------------------------

_ULTRAFACE = {"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0)}
_IMAGENET = {"pictures": "images/imagenet_sample", "crop": True}
_FACES = {"also": ("images/ultraface", "images/nanodet", "images/tflite_support")}


def _caffe(name: str, folder: str, model: str, weights: str | None, *ports: object, **facts: object) -> SourceNetwork:
    path = f"caffe/{folder}"
    file = None if weights is None else f"{path}/{weights}"
    return SourceNetwork(name, f"{path}/{model}", *ports, platform="caffe", weights=file, nchw=BOTH, **facts)


def _tflite(name: str, model: str, *ports: object, **facts: object) -> SourceNetwork:
    return SourceNetwork(name, f"tflite/{model}.tflite", *ports, **facts)


def _yamnet(name: str, begin: str, arrays: str, bands: int) -> SourceNetwork:
    return _tflite(
        name, "yamnet/yamnet", (begin,), ("tower0/network/layer32/final_output",), 96, bands, F32, arrays=arrays,
        options=("--inputs", begin, "--dequantize"), integers=True,
    )  # fmt: skip


def _graph(name: str, model: str, *ports: object, **facts: object) -> SourceNetwork:
    return SourceNetwork(name, f"tf/{model}.pb", *ports, platform="tensorflow_graphdef", **facts)


_DATA, _PROB = ("data",), ("prob",)
CAFFE = (
    _caffe(
        "caffe_lenet", "lenet_mnist", "lenet.prototxt", "lenet_iter_10000.caffemodel", _DATA, _PROB, 28, 28, "GRAY",
        mean=(0.0,), std=(256.0,), pictures="images/mnist/t10k-images-idx3-ubyte.gz", first_class=0,
        shapes=((1, 1, 28, 28),),
    ),
    _caffe(
        "caffe_squeezenet", "squeezenet_v1.0", "deploy.prototxt", "squeezenet_v1.0_deepcompression.caffemodel",
        _DATA, _PROB, 227, 227, "BGR", mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0), first_class=0,
        shapes=((1, 3, 227, 227),), **_IMAGENET,
    ),
    _caffe(
        "caffe_ultraface", "ultraface", "RFB-320.prototxt", "RFB-320.caffemodel", ("input",), ("scores", "boxes"),
        240, 320, **_ULTRAFACE, **_FACES,
    ),
    _caffe(
        "caffe_mobilenet", "mobilenet_v1_0.25_224_rot180", "mobilenet_v1_0.25_224_rot180.prototxt",
        "mobilenet_v1_0.25_224_rot180.caffemodel", _DATA, _PROB, 224, 224, rotated=True, first_class=1,
        **HALF, **_IMAGENET,
    ),
    _caffe("caffe_sr", "wechat_sr", "sr.prototxt", "sr.caffemodel", _DATA, ("fc",), 224, 224, "GRAY", (0.0,), (255.0,)),
    _caffe(
        "caffe_mobilenet_v2", "structure_only", "mobilenet_v2_deploy.prototxt", None, _DATA, _PROB, 224, 224, "BGR",
        mean=(123.68, 116.78, 103.94), std=(58.8, 58.8, 58.8), **_IMAGENET,
    ),
    _caffe(
        "caffe_squeezenet_v1.1", "structure_only", "squeezenet_v1.1_deploy.prototxt", None, _DATA, _PROB, 227, 227,
        "BGR", mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0), shapes=((1, 3, 227, 227),), **_IMAGENET,
    ),
)  # fmt: skip
_INPUT, _ANSWER = ("input_1",), ("Identity",)
_TINY = "quantized_refs/mlperf_tiny"
TFLITE = (
    _tflite(
        "mobilenet", "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224_1_default_1", ("input",),
        ("MobilenetV1/Predictions/Reshape_1",), 224, 224, first_class=1, peers_split=True,
        reference="quantized_refs/mobilenet_v1_0.25_224/mobilenet_v1_0.25_224_quant.tflite", **HALF, **_IMAGENET,
    ),
    _tflite("deeplabv3", "deeplabv3/deeplabv3", ("sub_7",), ("ResizeBilinear_3",), 257, 257, **HALF, **_FACES),
    _tflite(
        "resnet8", "mlperf_tiny/pretrainedResnet", _INPUT, _ANSWER, 32, 32, std=(1.0, 1.0, 1.0), arrays="ic01",
        first_class=0, reference=f"{_TINY}/pretrainedResnet_quant.tflite",
    ),
    _tflite(
        "vww", "mlperf_tiny/vww_96_float", _INPUT, _ANSWER, 96, 96, arrays="vww01", first_class=0,
        reference=f"{_TINY}/vww_96_int8.tflite",
    ),
    _tflite(
        "kws", "mlperf_tiny/kws_ref_model_float32", _INPUT, _ANSWER, 49, 10, F32, arrays="kws01", first_class=0,
        integers=True, reference=f"{_TINY}/kws_ref_model.tflite",
    ),
    _tflite(
        "ad01", "mlperf_tiny/ad01_fp32", _INPUT, _ANSWER, 1, 640, F32, arrays="ad01",
        reference=f"{_TINY}/ad01_int8.tflite",
    ),
    _tflite(
        "face_front", "mediapipe/face_detection_front_f32", ("input",), ("regressors", "classificators"), 128, 128,
        **HALF, **_FACES,
    ),
    _tflite(
        "face_short_range", "mediapipe/face_detection_short_range_f16", ("input",), ("regressors", "classificators"),
        128, 128, **HALF, **_FACES,
    ),
    _tflite(
        "palm", "mediapipe/palm_detection_f32", ("input",), ("regressors", "classificators"), 128, 128, **HALF,
        **_FACES,
    ),
    _tflite("selfie", "mediapipe/selfie_segmentation_f16", _INPUT, ("activation_10",), 256, 256, **_FACES),
    _tflite("movie_review", "movie_review_nl/movie_review", ("input_3",), _ANSWER, 1, 256, S16, arrays="reviews"),
    _tflite(
        "yolox_nano", "yolox_nano/yolox_nano_float16_quantize", ("serving_default_images:0",),
        ("PartitionedCall:0",), 416, 416, "BGR", std=(1.0, 1.0, 1.0), letterbox=True, nchw=BOTH, **_FACES,
    ),
    _yamnet("yamnet", "magnitude_spectrogram", "spectra", 257),
    _yamnet("yamnet_log_mel", "log_mel_spectrogram", "log_mel", 64),
)  # fmt: skip
_MFCC = {"options": ("--inputs", "Mfcc")}
TENSORFLOW = (
    _graph(
        "tf_mobilenet", "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224_frozen", ("input",), ("L30_softmax",), 224, 224,
        first_class=1, shapes=((1, 224, 224, 3),), **HALF, **_IMAGENET,
    ),
    _graph(
        "tf_face_detector", "opencv_face_detector/opencv_face_detector_uint8", _DATA,
        ("mbox_loc", "mbox_conf_flatten"), 300, 300, "BGR", mean=(123.0, 177.0, 104.0), std=(1.0, 1.0, 1.0),
        shapes=((1, 300, 300, 3),),
        opencv="tf/opencv_face_detector/opencv_face_detector.pbtxt",  # TensorFlow's Dequantize of one value is NaN
        **_FACES,
    ),
    _graph(
        "tf_dnn_m", "kws_mcu/DNN_M", ("Mfcc",), ("labels_softmax",), 25, 10, F32, arrays="DNN_M",
        shapes=((1, 25, 10),), **_MFCC,
    ),
    _graph(
        "tf_ds_cnn_s", "kws_mcu/DS_CNN_S", ("Mfcc",), ("labels_softmax",), 49, 10, F32, arrays="DS_CNN_S",
        shapes=((1, 49, 10),), **_MFCC,
    ),
    _graph(
        "tf_lstm_m", "kws_mcu/LSTM_M", ("Mfcc",), ("labels_softmax",), 49, 10, F32, arrays="LSTM_M",
        shapes=((1, 49, 10),), **_MFCC,
    ),
    _graph(
        "tf_fsrcnn", "super_resolution/FSRCNN_x2", ("IteratorGetNext",), ("NCHW_output",), 112, 112, "GRAY",
        mean=(0.0,), std=(255.0,), shapes=((1, 112, 112, 1),), nchw=frozenset({"outputs"}),
    ),
)  # fmt: skip
NETWORKS = {network.name: network for network in (*CAFFE, *TFLITE, *TENSORFLOW)}
