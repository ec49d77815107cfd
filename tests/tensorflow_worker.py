"""What the tests want of TensorFlow, in a process of its own: `python tensorflow_worker.py FOLDER` makes networks in
the folder, converts each in this one process, and says in FOLDER/results.pkl what TensorFlow itself computes."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tensorflow_layers as layers
from sgs.errors import UserError
from sgs.frontends.onnx_surgery import Endpoint, Surgery
from sgs.frontends.platforms import Asked, platform_named
from sgs.frontends.tensorflow.child import Answer, Request
from sgs.frontends.tensorflow.convert import convert

v1 = tf.compat.v1
L = keras.layers
RNG = np.random.default_rng(3)
Result = dict[str, Any]


def random(*shape: int, low: float = -1.0, high: float = 1.0) -> Any:
    return RNG.uniform(low, high, shape).astype(np.float32)


def converted(platform: str, path: Path, asked: Asked, **values: Any) -> Answer | UserError:
    row = platform_named(platform, stage="test")
    request = Request(platform, path, row.complete({row.options[0].name: path, **values}), asked)
    try:
        return convert(request)
    except UserError as error:
        return error


def asked(inputs: str, outputs: str, *shapes: Sequence[int], surgery: Surgery | None = None) -> Asked:
    names = (tuple(text.split(",")) for text in (inputs, outputs))
    return Asked(*names, tuple(map(tuple, shapes)) or None, surgery or Surgery())


# -- Keras -------------------------------------------------------------------------------------------------------------
def layer_group(name: str, folder: Path) -> Result:
    model = layers.group(name)
    x = random(1, *model.inputs[0].shape[1:])
    path = folder / f"{name}.keras"
    model.save(path)
    names = [f"{row}_out" for row in layers.GROUPS[name][1]]
    wanted = dict(zip(names, map(np.asarray, model(x, training=False)), strict=True))
    left = sum(row[1] for row in layers.GROUPS[name][1].values() if isinstance(row, tuple))
    answer = converted("keras", path, Asked(("x",), tuple(names)))
    return {"answer": answer, "feeds": {"x": x}, "wanted": wanted, "left": left}


def small() -> Any:
    """Two inputs, two outputs, one of them NHWC; names of inputs and layers are given."""
    keras.utils.set_random_seed(7)
    image, aux = keras.Input((8, 12, 3), name="image"), keras.Input((5,), name="aux")
    features = L.Conv2D(6, 3, strides=2, activation="relu", name="features")(image)
    joined = L.Concatenate(name="joined")([L.GlobalAveragePooling2D(name="pooled")(features), aux])
    scores = L.Dense(4, activation="softmax", name="scores")(joined)
    return keras.Model({"image": image, "aux": aux}, {"scores": scores, "map": L.Conv2D(2, 1, name="map")(features)})


def keras_files(folder: Path) -> dict[str, Result]:
    model = small()
    feeds = {"image": random(1, 8, 12, 3), "aux": random(1, 5)}
    wanted = {key: np.asarray(value) for key, value in model(feeds).items()}
    found = {}
    for suffix in ("keras", "h5"):
        path = folder / f"small.{suffix}"
        model.save(path)
        answer = converted("keras", path, asked("image,aux", "scores,map"))
        found[f"small_{suffix}"] = {"answer": answer, "feeds": feeds, "wanted": wanted}
    layer = keras.Model(model.inputs, model.get_layer("features").output)
    inner = np.asarray(layer(feeds))
    path = folder / "small.keras"
    found["layer_out"] = {
        "answer": converted("keras", path, asked("image", "features")),
        "feeds": {"image": feeds["image"]},
        "wanted": {"features": inner},
    }
    found["layer_in"] = {
        "answer": converted("keras", path, asked("features,aux", "scores", (1, 3, 5, 6), (1, 5))),
        "feeds": {"features": inner, "aux": feeds["aux"]},
        "wanted": {"scores": wanted["scores"]},
    }
    found["too_small"] = {"answer": converted("keras", path, asked("image,aux", "scores,map", (1, 8, 12, 3), (1, 4)))}
    renamed = dict(rename_inputs=("a", "b"), rename_outputs=("y", "z"))
    names = [tensor._keras_history.operation.name for tensor in (*model.inputs, *model.outputs)]
    new = dict(zip(names, "abyz", strict=True))
    found["renamed"] = {
        "answer": converted("keras", path, asked("b,a", "z,y"), **renamed),
        "feeds": {new[name]: value for name, value in feeds.items()},
        "wanted": {new[name]: value for name, value in wanted.items()},
    }
    found["no_names"] = {"answer": converted("keras", path, Asked()), "feeds": feeds, "wanted": wanted}
    return {**found, **keras_refusals(folder), **keras_2(folder)}


def keras_2(folder: Path) -> dict[str, Result]:
    """Files of Keras 2, which Keras 3 refuses, or takes for others: its hard sigmoid has another slope."""
    import tf_keras

    old = tf_keras.layers
    tf_keras.utils.set_random_seed(4)
    x = tf_keras.Input((8, 12, 3), name="picture")
    y = old.Conv2D(4, 3, activation="hard_sigmoid", name="first")(x)
    y = old.Conv2DTranspose(3, 3)(old.SeparableConv2D(4, 3)(old.BatchNormalization()(old.DepthwiseConv2D(3)(y))))
    y = old.LSTM(5, recurrent_activation="hard_sigmoid")(old.Reshape((4, 24))(old.SpatialDropout2D(0.3)(y)))
    model = tf_keras.Model(x, old.Dense(2, name="last")(y))
    picture = random(1, 8, 12, 3)
    wanted = {"last": np.asarray(model(picture))}
    first = tf_keras.Model(x, model.get_layer("first").output)
    found = {}
    for suffix in ("h5", "keras"):
        path = folder / f"keras_2.{suffix}"
        model.save(path)
        answer = converted("keras", path, asked("picture", "last"))
        found[f"keras_2_{suffix}"] = {"answer": answer, "feeds": {"picture": picture}, "wanted": wanted}
    answer = converted("keras", folder / "keras_2.h5", asked("picture", "first"))
    inner = {"first": np.asarray(first(picture))}
    found["keras_2_layer"] = {"answer": answer, "feeds": {"picture": picture}, "wanted": inner}
    model = tf_keras.Sequential([old.Input((4,)), old.Lambda(lambda x: x * 2, name="twice")])
    model.save(folder / "lambda_2.h5")
    found["lambda_2"] = {"answer": converted("keras", folder / "lambda_2.h5", Asked())}
    return found


def _edited(path: Path, model: Any, old: bytes, new: bytes) -> None:
    """Save a model with other words in its configuration."""
    whole = path.with_name(f"whole_{path.name}")
    model.save(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(old, new) if name == "config.json" else source.read(name))


def keras_refusals(folder: Path) -> dict[str, Result]:
    model = keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x * 2, name="twice"), L.Dense(2)])
    found = {}
    for suffix in ("keras", "h5"):
        path = folder / f"lambda.{suffix}"
        model.save(path)
        found[f"lambda_{suffix}"] = {"answer": converted("keras", path, Asked())}
    path = folder / "unknown.keras"
    _edited(path, keras.Sequential([keras.Input((4,)), L.Dense(2, activation="tanh")]), b'"tanh"', b'"tahn"')
    found["unknown_activation"] = {"answer": converted("keras", path, Asked())}

    @keras.saving.register_keras_serializable("nowhere")
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dense = L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    own = Own()
    x = random(1, 4)
    wanted = np.asarray(own(x))
    own.save(folder / "own.keras")
    own.export(folder / "own", verbose=False)
    keras.saving.get_custom_objects().clear()
    found["own_class"] = {"answer": converted("keras", folder / "own.keras", Asked())}
    found["own_exported"] = {
        "answer": converted("tensorflow_savemodel", folder / "own", Asked()),
        "feeds": {"args_0": x},
        "wanted": {"output_0": wanted},
    }
    small().save_weights(folder / "only.weights.h5")
    found["weights_only"] = {"answer": converted("keras", folder / "only.weights.h5", Asked())}
    (folder / "broken.keras").write_bytes((folder / "small.keras").read_bytes()[:-700])
    (folder / "broken.h5").write_bytes((folder / "small.h5").read_bytes()[:3000])
    found["broken_h5"] = {"answer": converted("keras", folder / "broken.h5", Asked())}
    return found


# -- SavedModels -------------------------------------------------------------------------------------------------------
class Free(tf.Module):  # type: ignore[misc]
    """A module whose call takes pictures of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(random(3, 3, 3, 4))

    def call(self, x: Any) -> Any:
        y = tf.nn.relu(tf.nn.conv2d(x, self.kernel, 1, "SAME"))
        size = tf.shape(y)
        return tf.reshape(y, [size[0], size[1] * size[2], 4])


def saved_models(folder: Path) -> dict[str, Result]:
    found = {}
    model = small()
    model.export(folder / "exported", verbose=False)
    feeds = {"image": random(1, 8, 12, 3), "aux": random(1, 5)}
    wanted = {key: np.asarray(value) for key, value in model(feeds).items()}
    for name, options in (("exported", {}), ("endpoint", {"signature_key": "serve"})):
        answer = converted("tensorflow_savemodel", folder / "exported", asked("image,aux", "map,scores"), **options)
        found[name] = {"answer": answer, "feeds": feeds, "wanted": wanted}
    answer = converted("tensorflow_savemodel", folder / "exported", Asked(), use_graph_names=True)
    found["graph_names"] = {"answer": answer}

    free = Free()
    call = tf.function(free.call, input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="picture")])
    free.__call__ = call
    both = {"flat": call.get_concrete_function()}
    tf.saved_model.save(free, str(folder / "free"), signatures=both)
    x = random(1, 7, 9, 3)
    y = np.asarray(free.call(x))
    found["free"] = {
        "answer": converted("tensorflow_savemodel", folder / "free", asked("picture", "output_0", x.shape)),
        "feeds": {"picture": x},
        "wanted": {"output_0": y},
    }
    found["trace"] = {
        "answer": converted(
            "tensorflow_savemodel", folder / "free", asked("picture", "Identity", x.shape), concrete_function="0"
        ),
        "feeds": {"picture": x},
        "wanted": {"Identity": y},
    }
    refusals: dict[str, dict[str, Any]] = {
        "no_shape": {},
        "wrong_signature": {"signature_key": "flatt"},
        "wrong_tags": {"tag_set": ("serve", "gpu")},
        "wrong_trace": {"concrete_function": "1"},
        "two_functions": {"concrete_function": "0", "signature_key": "flat"},
    }
    for name, options in refusals.items():
        found[name] = {"answer": converted("tensorflow_savemodel", folder / "free", Asked(), **options)}
    found["old_saved"] = old_saved_model(folder / "old")
    return found


def old_saved_model(folder: Path) -> Result:
    """As TensorFlow 1 writes it: variables, a session, the tags of its maker."""
    x = random(1, 5)
    with tf.Graph().as_default(), v1.Session() as session:
        fed = v1.placeholder(tf.float32, [None, 5], name="fed")
        weights = v1.get_variable("weights", initializer=random(5, 3), use_resource=False)
        result = tf.nn.relu(tf.matmul(fed, weights), name="result")
        session.run(v1.global_variables_initializer())
        wanted = session.run(result, {fed: x})
        builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
        signature = v1.saved_model.signature_def_utils.predict_signature_def({"fed_in": fed}, {"out": result})
        builder.add_meta_graph_and_variables(session, ["serve", "mine"], signature_def_map={"only": signature})
        builder.save()
    answer = converted("tensorflow_savemodel", folder, asked("fed_in", "out"), tag_set=("mine", "serve"))
    return {"answer": answer, "feeds": {"fed_in": x}, "wanted": {"out": wanted}}


# -- frozen graphs -----------------------------------------------------------------------------------------------------
def graph_file(path: Path, make: Callable[[], None]) -> Any:
    """A graph that `make` builds, in a file."""
    with tf.Graph().as_default() as graph:
        make()
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return graph


def evaluate(graph: Any, feeds: dict[str, Any], outputs: dict[str, str]) -> dict[str, Any]:
    with v1.Session(graph=graph) as session:
        return {name: session.run(tensor, feeds) for name, tensor in outputs.items()}


def turned() -> None:
    """A convolution in NCHW, as for a GPU."""
    x = v1.placeholder(tf.float32, [1, 3, 8, 12], name="x")
    kernel = np.linspace(-1, 1, 108, dtype=np.float32).reshape(3, 3, 3, 4)
    y = tf.nn.conv2d(x, kernel, 1, "SAME", data_format="NCHW")
    tf.nn.relu(y, name="y")


def with_defaults() -> None:
    x = v1.placeholder(tf.float32, [None, 6], name="x")
    scale = v1.placeholder_with_default(np.full((1, 6), 3, np.float32), [1, 6], name="scale")
    tf.add(x * scale, 1.0, name="y")


def several() -> None:
    """A node of two results."""
    x = v1.placeholder(tf.float32, [2, 6], name="x")
    first, second = tf.split(x, 2, axis=1, name="split")
    tf.add(first * 2.0, tf.tanh(second), name="y")


def with_variables() -> None:
    x = v1.placeholder(tf.float32, [1, 6], name="x")
    weights = v1.get_variable("weights", [6, 2], use_resource=False)
    bias = v1.get_variable("bias", [2], use_resource=False)
    tf.add(tf.matmul(x, weights), bias, name="y")


def unsupported() -> None:
    x = v1.placeholder(tf.float32, [1, 6], name="x")
    tf.add(tf.math.lgamma(x, name="gamma") * tf.math.digamma(x, name="psi"), tf.math.igamma(x, x, name="low"), name="y")


def sizes() -> None:
    x = v1.placeholder(tf.float32, [None, None, None, 3], name="x")
    tf.identity(tf.image.resize(x, [5, 7]), name="y")


def frozen_graphs(folder: Path) -> dict[str, Result]:
    found: dict[str, Result] = {}

    def add(name: str, file: str, part: Asked, feeds: Any = None, wanted: Any = None, **values: Any) -> None:
        answer = converted("tensorflow_graphdef", folder / file, part, **values)
        found[name] = {"answer": answer, "feeds": feeds, "wanted": wanted}

    x, scale = random(1, 6), np.full((1, 6), 5, np.float32)
    graph = graph_file(folder / "defaults.pb", with_defaults)
    three = evaluate(graph, {"x:0": x}, {"y": "y:0"})
    five = evaluate(graph, {"x:0": x, "scale:0": scale}, {"y": "y:0"})
    one, two = asked("x", "y"), asked("scale,x", "y")
    add("default", "defaults.pb", one, {"x": x}, three)
    add("default_fed", "defaults.pb", two, {"x": x, "scale": scale}, five)
    add("default_used", "defaults.pb", one, {"x": x}, three, use_default=("scale",))
    add("default_ignored", "defaults.pb", two, {"x": x, "scale": scale}, five, ignore_default=("scale",))
    add("default_must_be_fed", "defaults.pb", one, ignore_default=("scale",))
    add("default_unknown", "defaults.pb", one, use_default=("x",))
    cuts(folder, add)

    x = random(1, 3, 8, 12)
    graph_file(folder / "turned.pb", turned)
    add("turned", "turned.pb", one, {"x": x}, {"y": convolved(x)})
    graph_file(folder / "variables.pb", with_variables)
    add("variables", "variables.pb", one)
    graph_file(folder / "unsupported.pb", unsupported)
    add("unsupported", "unsupported.pb", one)
    add("custom", "unsupported.pb", one, custom_ops=("Lgamma:my.domain", "Digamma", "Igamma"))
    options(folder, add)
    return found


def convolved(x: Any) -> Any:
    """What `turned` computes, on a machine that computes in NHWC only."""
    with tf.Graph().as_default():
        turned()
        kernel = next(op for op in v1.get_default_graph().get_operations() if op.type == "Const").outputs[0]
        y = tf.nn.relu(tf.nn.conv2d(tf.transpose(tf.constant(x), (0, 2, 3, 1)), kernel, 1, "SAME"))
        with v1.Session() as session:
            return session.run(tf.transpose(y, (0, 3, 1, 2)))


def cuts(folder: Path, add: Callable[..., None]) -> None:
    """Names of every kind, shapes, and what is wrong with them."""
    x = random(2, 6)
    graph = graph_file(folder / "several.pb", several)
    tensors = {"split:0": "split:0", "split:1": "split:1", "y": "y:0"}
    first, second, y = evaluate(graph, {"x:0": x}, tensors).values()
    halves = {"split:1": second, "split": first}
    add("one_result", "several.pb", asked("split:0,x", "y"), {"split:0": first, "x": x}, {"y": y})
    add("results", "several.pb", asked("x:0", "split:1,split,y:0"), {"x:0": x}, {**halves, "y:0": y})
    add("both_results", "several.pb", asked("split:1,split", "y,split:0"), halves, {"y": y, "split:0": first})
    add("wrong_names", "several.pb", asked("z", "y,spilt,split:2"))
    add("missing_input", "several.pb", asked("split:0", "y"))
    larger, beyond = Endpoint("x", (3, 6)), Endpoint("y", (3, 3))
    add("cut_shapes", "several.pb", asked("x", "y", surgery=Surgery((larger,), (beyond,))))
    add("cut_shapes_wrong", "several.pb", asked("x", "y", surgery=Surgery((), (beyond,))))
    add("shape_twice", "several.pb", asked("x", "y", (2, 6), surgery=Surgery((larger,))))
    add("shape_count", "several.pb", asked("x", "y", (2, 6), (2, 6)))
    add("rank", "several.pb", asked("x", "y", (2, 6, 1)))
    add("invalid_shape", "several.pb", asked("x", "y", (2, 5)))
    names = {"rename_inputs": ("in",), "rename_outputs": ("out",)}
    add("renamed_graph", "several.pb", asked("in", "out"), {"in": x}, {"out": y}, **names)
    add("renamed_wrong", "several.pb", asked("in", "out"), rename_inputs=("in", "on"))


def options(folder: Path, add: Callable[..., None]) -> None:
    """The options of tf2onnx."""
    graph = graph_file(folder / "sizes.pb", sizes)
    add("sizes_open", "sizes.pb", Asked())
    x = random(1, 4, 6, 3)
    wanted = evaluate(graph, {"x:0": x}, {"y": "y:0"})
    right: dict[str, dict[str, Any]] = {
        "sizes": {},
        "opset": {"opset": 13},
        "nchw": {"inputs_as_nchw": ("x:0",), "outputs_as_nchw": ("y",)},
        "libraries": {"load_op_libraries": (tf_library(),)},
        "extra_opset": {"extra_opset": ("com.microsoft:1",)},
    }
    for name, values in right.items():
        perm = (0, 3, 1, 2) if name == "nchw" else (0, 1, 2, 3)
        results = {"y": wanted["y"].transpose(perm)}
        add(name, "sizes.pb", asked("x", "y", (1, 4, 6, 3)), {"x": x.transpose(perm)}, results, **values)
    wrong: dict[str, dict[str, Any]] = {
        "opset_wrong": {"opset": 25},
        "extra_opset_wrong": {"extra_opset": ("com.microsoft",)},
        "custom_wrong": {"custom_ops": ("a:b:c",)},
        "libraries_missing": {"load_op_libraries": ("nowhere.so",)},
        "libraries_none": {"load_op_libraries": (str(folder / "sizes.pb"),)},
        "nchw_wrong": {"inputs_as_nchw": ("q",)},
    }
    for name, values in wrong.items():
        add(name, "several.pb", asked("x", "y"), **values)


def tf_library() -> str:
    """A shared library that TensorFlow can load."""
    return str(next(Path(tf.__file__).parent.glob("libtensorflow_framework.so*")))


# -- public networks ---------------------------------------------------------------------------------------------------
NETWORKS: dict[str, tuple[str, str, str, tuple[int, ...], float, float]] = {
    "mobilenet": (
        "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224_frozen.pb",
        "input",
        "L30_softmax",
        (1, 224, 224, 3),
        -1,
        1,
    ),
    "super_resolution": ("super_resolution/FSRCNN_x2.pb", "IteratorGetNext", "NCHW_output", (1, 60, 80, 1), 0, 1),
    "kws_dnn": ("kws_mcu/DNN_M.pb", "Mfcc", "labels_softmax", (1, 25, 10), -10, 10),
    "kws_ds_cnn": ("kws_mcu/DS_CNN_S.pb", "Mfcc", "labels_softmax", (1, 49, 10), -10, 10),
    "kws_lstm": ("kws_mcu/LSTM_M.pb", "Mfcc", "labels_softmax", (1, 49, 10), -10, 10),
    "face_detector": (
        "opencv_face_detector/opencv_face_detector_uint8.pb",
        "data",
        "mbox_loc,mbox_conf_flatten",
        (1, 300, 300, 3),
        -120,
        120,
    ),
}


# constants of which TensorFlow makes NaN, where 0 is meant: ranges from 0 to the smallest normal number
NOT_FINITE = {
    "face_detector": [
        f"{name}/beta:0"
        for name in ("data_bn", "conv1_bn_h", "layer_128_1_bn1_h", "layer_256_1_bn1", "layer_512_1_bn1", "last_bn_h")
    ]
}


def networks(data: Path) -> dict[str, Result]:
    found = {}
    for name, (file, entry, ends, shape, low, high) in NETWORKS.items():
        path, x = data / "tf" / file, random(*shape, low=low, high=high)
        with tf.Graph().as_default() as graph:
            v1.import_graph_def(v1.GraphDef.FromString(path.read_bytes()), name="")
        zeros = {constant: np.zeros(graph.get_tensor_by_name(constant).shape) for constant in NOT_FINITE.get(name, ())}
        feeds = {f"{entry}:0": x, **zeros}
        wanted = evaluate(graph, feeds, {end: f"{end}:0" for end in ends.split(",")})
        answer = converted("tensorflow_graphdef", path, asked(entry, ends, shape))
        found[name] = {"answer": answer, "feeds": {entry: x}, "wanted": wanted}
    path = data / "tf" / NETWORKS["kws_dnn"][0]
    found["kws_whole"] = {"answer": converted("tensorflow_graphdef", path, Asked())}
    return found


def main() -> None:
    folder, data = Path(sys.argv[1]), os.environ.get("SGS_TEST_DATA")
    results: dict[str, Result] = {name: layer_group(name, folder) for name in layers.GROUPS}
    results |= keras_files(folder)
    results |= saved_models(folder)
    results |= frozen_graphs(folder)
    if data:
        results |= networks(Path(data))
    part = folder / "results.part"
    part.write_bytes(pickle.dumps(results))
    part.replace(folder / "results.pkl")


if __name__ == "__main__":
    main()
