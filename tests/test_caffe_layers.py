"""Every Caffe layer: its translation in onnxruntime and the float graph in the engine compute what `caffe_reference`
says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe_cases import CASES, Case, Shape, network, one, weight_file
from caffe_reference import run
from onnx_compare import run_onnx
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends.caffe.context import CAFFE
from sgs.frontends.onnx_import import import_model
from sgs.frontends.onnx_layout import SourceLayouts
from sgs.frontends.onnx_model import SourceModel
from sgs.frontends.onnx_surgery import NO_SURGERY, Endpoint, Surgery
from sgs.frontends.platforms import Asked, platform_named
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.passes.pipeline import optimise


def load(case: Case, folder: Path, surgery: Surgery = NO_SURGERY) -> SourceModel:
    """The case as files, translated."""
    model, weights = folder / "net.prototxt", folder / "net.caffemodel"
    model.write_text(case.text)
    weights.write_bytes(weight_file(case.text, case.weights))
    platform = platform_named("caffe", stage="test")
    asked = Asked(tuple(case.inputs), shapes=tuple(case.inputs.values()), surgery=surgery)  # the batch as it is
    source = platform.load(platform.complete({"model_file": model, "weight_file": weights}), asked)
    assert isinstance(source, SourceModel)
    return source


def imported(source: SourceModel) -> Graph:
    graph = import_model(source)
    optimise(graph)
    return graph


def turned(value: Array, turns: bool, *order: int) -> Array:
    return np.ascontiguousarray(value.transpose(order)) if turns and value.ndim == 4 else value


def run_graph(graph: Graph, source: SourceModel, feeds: dict[str, Array]) -> dict[str, Array]:
    """Feeds and results in Caffe's layout; the graph has NHWC, and so has Caffe's where it permutes to that."""
    layouts = SourceLayouts(source.proto, source.layouts)
    ours = {name: turned(feeds[name], layouts.of_input(name) == "NCHW", 0, 2, 3, 1) for name in graph.inputs}
    results = FloatEngine(graph, threads=1).run(ours)
    return {name: turned(value, layouts.of_output(name) == "NCHW", 0, 3, 1, 2) for name, value in results.items()}


def assert_near(found: Array, wanted: Array, tolerance: float = 2e-5) -> None:
    """`tolerance`: share of the largest magnitude, or of 0.01 if that is more."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(0.01, np.abs(wanted).max(initial=0)))


@pytest.mark.parametrize(("kind", "index"), [(kind, i) for kind, rows in CASES.items() for i in range(len(rows))])
def test_layer(kind: str, index: int, tmp_path: Path) -> None:
    case = CASES[kind][index]
    source, feeds = load(case, tmp_path), case.feeds()
    wanted = run(case.text, feeds, case.weights)
    asked = [port.name for port in source.outputs]
    assert asked == sorted(name for name in wanted if name.startswith("y"))
    theirs = run_onnx(source.proto, {port.name: feeds[port.name] for port in source.inputs})
    graph = imported(source)
    ours = run_graph(graph, source, feeds)
    for name in asked:
        assert_near(theirs[name], wanted[name])
        assert_near(ours[name], wanted[name])
    if case.transposes is not None:
        assert sum(node.op == "TRANSPOSE" for node in graph.nodes) == case.transposes


def test_every_layer_type_has_a_case() -> None:
    alike = {"DepthwiseConv", "Hswish", "SoftmaxWithLoss"}  # other names of one that has
    assert set(CAFFE) - alike == set(CASES)


# -- cuts --------------------------------------------------------------------------------------------------------------
def layer(kind: str, bottoms: str, top: str, parameters: str = "") -> str:
    ends = " ".join([*(f'bottom: "{name}"' for name in bottoms.split()), f'top: "{top}"'])
    return f'layer {{ name: "{top}" type: "{kind}" {ends} {parameters} }}\n'


def detector() -> Case:
    """An SSD of two scales in small."""
    rng, text, window = np.random.default_rng(1), "", "convolution_param"
    weights: dict[str, list[Array]] = {}
    for bottom, top, outputs, inputs in (("data", "a", 8, 3), ("a", "b", 6, 8)):
        text += layer("Convolution", bottom, top, f"{window} {{ num_output: {outputs} kernel_size: 3 stride: 2 }}")
        weights[top] = [rng.uniform(-1, 1, (outputs, inputs, 3, 3)), rng.uniform(-1, 1, (outputs,))]
        for head, count in (("loc", 12), ("conf", 6)):
            name = f"{top}_{head}"
            text += layer(
                "Convolution", top, name, f"{window} {{ num_output: {count} kernel_size: 1 bias_term: false }}"
            )
            weights[name] = [rng.uniform(-1, 1, (count, outputs, 1, 1))]
            text += layer("Permute", name, f"{name}_perm", "permute_param { order: [0, 2, 3, 1] }")
            text += layer("Flatten", f"{name}_perm", f"{name}_flat")
        text += layer("PriorBox", f"{top} data", f"{top}_prior", "prior_box_param { min_size: 20 aspect_ratio: 2 }")
    text += layer("Concat", "a_loc_flat b_loc_flat", "mbox_loc") + layer(
        "Concat", "a_conf_flat b_conf_flat", "mbox_conf"
    )
    text += layer("Concat", "a_prior b_prior", "mbox_prior", "concat_param { axis: 2 }")
    own = "detection_output_param { num_classes: 3 field_of_a_fork { a: 1 } }"
    text += layer("DetectionOutput", "mbox_loc mbox_conf mbox_prior", "detections", own)
    shapes: dict[str, Shape] = {"data": (1, 3, 33, 41)}
    floats = {name: [value.astype(np.float32) for value in values] for name, values in weights.items()}
    return Case(network(text, shapes), shapes, floats)


def test_cut_before_what_chooses_boxes(tmp_path: Path) -> None:
    case = detector()
    with pytest.raises(UserError, match="DetectionOutput 'detections'.*--outputs mbox_loc,mbox_conf, or name"):
        load(case, tmp_path)
    asked = Surgery(outputs=tuple(Endpoint(name) for name in ("mbox_loc", "mbox_conf", "mbox_prior")))
    source, feeds = load(case, tmp_path, asked), case.feeds()
    wanted = run(case.text.replace(case.text.splitlines()[-1], ""), feeds, case.weights)
    graph = import_model(source, surgery=asked)
    optimise(graph)
    found = run_graph(graph, source, feeds)
    assert list(found) == ["mbox_loc", "mbox_conf", "mbox_prior"]
    assert found["mbox_prior"].shape == (1, 2, 4 * 3 * (16 * 20 + 7 * 9))
    for name, value in found.items():
        assert_near(value, wanted[name])
    assert not any(node.op == "TRANSPOSE" for node in graph.nodes)


def test_cut_behind_what_has_no_meaning_here(tmp_path: Path) -> None:
    text = layer("ReLU", "data", "features") + layer("Python", "features", "rois")
    text += layer("ROIPooling", "features rois", "y0", "roi_pooling_param { pooled_h: 2 pooled_w: 3 }")
    regions = np.array([[0, 1, 2, 5, 6], [0, 0, 0, 3, 3]], np.float32)
    shapes: dict[str, Shape] = {"data": (1, 2, 9, 7)}
    case = Case(network(text, shapes), shapes)
    with pytest.raises(UserError, match="Python 'rois': .* --outputs features, or name"):
        load(case, tmp_path)
    asked = Surgery(inputs=(Endpoint("features", (1, 2, 9, 7)), Endpoint("rois", (2, 5))))
    second = Case(case.text, {"features": (1, 2, 9, 7), "rois": (2, 5)}, given={"rois": regions})
    source, feeds = load(second, tmp_path, asked), second.feeds()
    graph = import_model(source, surgery=asked)
    optimise(graph)
    assert graph.inputs == ["features", "rois"]
    wanted = run(case.text.splitlines()[-1], feeds, {})
    assert_near(run_graph(graph, source, feeds)["y0"], wanted["y0"])


# -- refusals ----------------------------------------------------------------------------------------------------------
REFUSED: list[tuple[Case, str]] = [
    (one("Upsample", "upsample_param { scale: 2 }", (1, 2, 3, 5), (1, 2, 3, 5)), "Upsample 'it'.*Deconvolution"),
    (one("Upsample", "upsample_param { scale: 1.5 }", (1, 2, 3, 5)), "use an Interp layer"),
    (one("Slice", "slice_param { slice_point: 9 }", (1, 6), tops=2), "slice_point 9 does not cut an axis of 6"),
    (one("Slice", "", (1, 5), tops=2), "axis of 5 cannot be cut into 2 equal parts"),
    (one("Crop", "crop_param { offset: 3 }", (1, 2, 7, 9), (1, 2, 5, 5)), "ends at 8 of axis 2, which has only 7"),
    (one("Crop", "crop_param { offset: [1, 2, 3] }", (1, 2, 7, 9), (1, 2, 5, 5)), "3 offsets"),
    (one("Permute", "permute_param { order: 0 order: 0 }", (1, 6)), r"order \[0, 0\] does not name axes"),
    (one("Tile", "", (1, 6)), "tiles"),
    (one("ShuffleChannel", "shuffle_channel_param { group: 4 }", (1, 6, 2, 3)), "no 4 groups of channels"),
    (one("Reorg", "", (1, 6, 4, 4)), "no parts of stride 2"),
    (one("Interp", "", (1, 2, 3, 5)), "does not say how large"),
    (one("Interp", "interp_param { zoom_factor: 2 pad_beg: 1 }", (1, 2, 3, 5)), "up to 0 only"),
    (one("ROIPooling", "", (1, 2, 9, 7), (3, 5)), "pooled_h pooled_w"),
    (one("PriorBox", "", (1, 2, 3, 5), (1, 3, 30, 50)), "0 min_size"),
    (one("ArgMax", "argmax_param { top_k: 9 }", (1, 6)), "the 9 largest of 6 values"),
    (one("Axpy", "", (1, 2), (1, 2, 3, 5), (1, 2, 3, 4)), "do not fit each other"),
    (one("Log", "log_param { base: 1 }", (1, 6)), "no logarithm to base 1"),
    (one("Clip", "", (1, 6)), "clip_param { min max }"),
    (
        one("LSTM", "recurrent_param { num_output: 3 }", (4, 2, 5), (4, 3), weights=[(12, 5), (12,), (12, 3)]),
        "steps, batch",
    ),
    (
        one("LSTM", "recurrent_param { num_output: 3 }", (4, 2, 5), (4, 2), weights=[(12, 4), (12,), (12, 3)]),
        "input_weights",
    ),
    (one("BatchReindex", "", (4, 2), (3,)), "chooses samples of a batch"),
    (one("Embed", "embed_param { num_output: 4 input_dim: 3 }", (1, 6)), "has weights of no layer"),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_refused(case: Case, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason) as told:
        load(case, tmp_path)
    assert "'it'" in str(told.value)
