"""The detector in two stages: Scripts/examples/caffe_faster_rcnn on SGS_Models/caffe/caffe_faster_rcnn_shapes, beside
onnxruntime on the ONNX files with the same weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

import calibrator_custom
from calibrator_custom import utils
from conventions import ROOT
from sgs.cli import compiler_tool, convert_tool
from shipped import CHIP, launch

EXAMPLE = ROOT / "Scripts/examples/caffe_faster_rcnn"
FOLDER = ROOT / "SGS_Models/caffe/caffe_faster_rcnn_shapes"
JUDGE = ROOT / "SGS_Models/onnx/onnx_faster_rcnn_shapes"
OUTPUTS = {"main": ["--outputs", "rpn_cls_prob_reshape,rpn_bbox_pred,conv5_3"], "stage2": []}
PICTURES = ROOT / "SGS_Models/resource/shapes"
LABELS = FOLDER / "labels.txt"
KINDS = ("Float", "Fixed", "Offline")


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """faster_rcnn_simulator.py, and as its attribute `quality` the evaluate.py of the network."""
    before = list(sys.path)
    sys.path[:0] = [str(EXAMPLE)]
    try:
        module = loaded(EXAMPLE / "faster_rcnn_simulator.py")
        module.quality = loaded(JUDGE / "evaluate.py")
        yield module
    finally:
        sys.path[:] = before
        for name in ("stages", "rpn"):
            del sys.modules[name]


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"two_stages_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Models:
    """Both stages at every step, in a folder."""

    def __init__(self, folder: Path, level: str, changes: dict[str, str]) -> None:
        self.folder = folder
        for stage, ending, ini in (("main", "", "input_config.ini"), ("stage2", "_stage2", "input_config_stage2.ini")):
            text = (FOLDER / ini).read_text(encoding="utf-8")
            for old, new in changes.items():
                text = text.replace(old, new)
            (folder / ini).write_text(text, encoding="utf-8")
            model, weights = (str(FOLDER / f"{FOLDER.name}{ending}.{kind}") for kind in ("prototxt", "caffemodel"))
            options = ["--model_file", model, "--weight_file", weights, "--input_config", str(folder / ini)]
            target = ["--output_file", str(folder / f"{stage}_float.sim"), "--soc_version", CHIP]
            assert convert_tool.main(["caffe", *options, *OUTPUTS[stage], *target]) == 0
        options = ["-i", PICTURES / "calibration", "-m0", "main_float.sim", "-m1", "stage2_float.sim"]
        options += ["--quant_level", level]
        options += ["--input_config0", "input_config.ini", "--input_config1", "input_config_stage2.ini"]
        done = launch("Scripts/examples/caffe_faster_rcnn/faster_rcnn_calibrator.py", *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Fixed model at: main_fixed.sim\nFixed model at: stage2_fixed.sim\n"
        for stage in ("main", "stage2"):
            files = ["-m", str(folder / f"{stage}_fixed.sim"), "-o", str(folder / f"{stage}.img")]
            assert compiler_tool.main([*files, "--soc_version", CHIP]) == 0

    def of(self, kind: str) -> list[str]:
        ending = {"Float": "_float.sim", "Fixed": "_fixed.sim", "Offline": ".img"}[kind]
        return [str(self.folder / f"{stage}{ending}") for stage in ("main", "stage2")]


@pytest.fixture(scope="module")
def real_numbers(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """As shipped: conv5_3 passes as float32."""
    return Models(tmp_path_factory.mktemp("as shipped"), "L5", {})


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """conv5_3 passes as int16."""
    changes = {"TRUE,TRUE,TRUE": "TRUE,TRUE,FALSE", "=RAWDATA_F32_NHWC,": "=RAWDATA_S16_NHWC,"}
    return Models(tmp_path_factory.mktemp("编码"), "L2", changes)


@pytest.fixture(scope="module")
def manual_inis(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """As in the manual: conv5_3 leaves as int16 codes and enters as float32."""
    return Models(tmp_path_factory.mktemp("manual"), "L2", {"TRUE,TRUE,TRUE": "TRUE,TRUE,FALSE"})


def found_by(example: ModuleType, models: Models, kind: str) -> list[list[Any]]:
    """Detections in every test picture."""
    net = example.Net(*models.of(kind), kind)
    results = net([picture for picture, _, _ in example.quality.read_truth()], num_process=2)
    return [example.stages.detections(result, 128, 128) for result in results]


def agreement(example: ModuleType, first: list[list[Any]], second: list[list[Any]], overlap: float) -> tuple[int, int]:
    """(boxes that both have, boxes that either has)."""
    both = either = 0
    for these, those in zip(first, second, strict=True):
        boxes = np.array([detection.box for detection in these]).reshape(-1, 4)
        labels = np.array([detection.label for detection in these])
        both += example.quality.matched(those, boxes, labels, overlap)
        either += max(len(these), len(those))
    return both, either


@pytest.mark.parametrize("way", ["real_numbers", "codes", "manual_inis"])
def test_integers_find_what_the_float_models_find(
    example: ModuleType, request: pytest.FixtureRequest, way: str
) -> None:
    models = request.getfixturevalue(way)
    floats, fixed, offline = (found_by(example, models, kind) for kind in KINDS)
    assert fixed == offline
    both, either = agreement(example, floats, fixed, 0.9)
    assert both >= 0.95 * either > 0, f"{both} of {either}"


def test_the_float_models_find_what_onnxruntime_finds(example: ModuleType, real_numbers: Models) -> None:
    judge = example.quality.detect(example.quality.MODELS, example.quality.read_truth())
    both, either = agreement(example, judge, found_by(example, real_numbers, "Float"), 0.999)
    assert both == either > 50


@pytest.mark.parametrize("kind", ["Float", "Fixed"])
def test_quality(example: ModuleType, real_numbers: Models, kind: str) -> None:
    """On pictures that neither training nor calibration saw, at IoU 0.5."""
    found = found_by(example, real_numbers, kind)
    precision, recall = example.quality.quality(found, example.quality.read_truth())
    assert precision >= 0.9 and recall >= 0.9, f"precision {precision:.4f}, recall {recall:.4f}"


def test_codes_pass_as_they_are_where_both_stages_count_in_the_same_steps(example: ModuleType, codes: Models) -> None:
    net, hand_over = example.Net(*codes.of("Fixed"), "Fixed"), example.stages.hand_over
    source, target = net.main_model.get_output_details()[2], net.second_model.get_input_details()[0]
    assert source["dtype"] == target["dtype"] == np.int16 and source["quantization"] == target["quantization"]
    values = np.array([[-32768, -3, 0, 7, 32766]], np.int16)
    assert hand_over(values, source, target) is values
    coarser = {**target, "quantization": (source["quantization"][0] * 2, 0)}
    assert hand_over(values, source, coarser).tolist() == [[-16384, -2, 0, 4, 16383]]
    real = hand_over(values, source, {"dtype": np.float32})
    assert real.dtype == np.float32 and real[0, 3] == np.float32(7 * np.float32(source["quantization"][0]))
    assert np.array_equal(hand_over(real, {}, target), values)


def test_the_simulator_as_a_program(example: ModuleType, real_numbers: Models, tmp_path: Path) -> None:
    picture = PICTURES / "test/shapes_005.png"
    drawn = tmp_path / "画 drawn"
    program, label = (
        "Scripts/examples/caffe_faster_rcnn/faster_rcnn_simulator.py",
        ["-l", LABELS, "--soc_version", CHIP],
    )
    models = [f"-m{k}={path}" for k, path in enumerate(real_numbers.of("Offline"))]
    arguments = ["-i", picture, *models, "-t", "Offline", *label, "--draw_result", drawn]
    done = launch(program, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    truth = dict(zip(sorted((PICTURES / "test").glob("*.png")), example.quality.read_truth(), strict=True))[picture]
    names = LABELS.read_text(encoding="utf-8").split()
    told = sorted(line.split(": ")[1].split()[0] for line in done.stdout.splitlines())
    assert told == sorted(names[label - 1] for label in truth[2])
    assert cv2.imread(str(drawn / "shapes_005.png")).shape == (512, 512, 3)
    for change, message in (("Fixed", "expected a fixed .sim, got an offline .img"), ("no", "invalid choice")):
        done = launch(program, "-i", picture, *models, "-t", change, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


# -- the classes of the manual -----------------------------------------------------------------------------------------
RUN = """
        self.main_model.set_input(0, input_data)
        self.main_model.invoke()
        result_list = []
        for idx, _ in enumerate(out_details):
            result = self.main_model.get_output(idx)
            result_list.append(result)
        im_info = np.array([x.shape[0], x.shape[1], im_scale]).reshape(1, 3)
        bottom = [result_list[0], result_list[1], im_info]
        roi = self.rpn.forward(bottom)
        out2_details = self.second_model.get_output_details()
        self.second_model.set_input(0, result_list[2])
        self.second_model.set_input(1, roi)
        self.second_model.invoke()
        second_result = []
        for idx, _ in enumerate(out2_details):
            result = self.second_model.get_output(idx)
            second_result.append(result)
        return second_result
"""
CALIBRATOR = f"""
class Net(calibrator_custom.SIM_Calibrator):
    def __init__(self, main_model_path, main_input_config, second_model_path, second_input_config):
        super().__init__()
        self.main_model = calibrator_custom.calibrator(main_model_path, main_input_config)
        self.second_model = calibrator_custom.calibrator(second_model_path, second_input_config)
        self.rpn = rpn.ProposalLayer()
    def forward(self, x):
        out_details = self.main_model.get_output_details()
        input_data, im_scale = fill_inputImg2main(x){RUN}"""
# The manual says `norm=norm` where there is no norm, prints the first lines of forward twice, and two equal branches.
SIMULATOR = f"""
class Net(calibrator_custom.SIM_Simulator):
    def __init__(self, main_model_path, second_model_path, phase):
        super().__init__()
        if phase == 'Float':
            self.main_model = calibrator_custom.float_simulator(main_model_path)
            self.second_model = calibrator_custom.float_simulator(second_model_path)
            self.norm = True
        elif phase == 'Fixed':
            self.main_model = calibrator_custom.fixed_simulator(main_model_path)
            self.second_model = calibrator_custom.fixed_simulator(second_model_path)
            self.norm = False
        else:
            self.main_model = calibrator_custom.offline_simulator(main_model_path)
            self.second_model = calibrator_custom.offline_simulator(second_model_path)
            self.norm = False
        self.rpn = rpn.ProposalLayer()
    def forward(self, x):
        # Run main model
        out_details = self.main_model.get_output_details()
        input_data, im_scale = fill_inputImg2main(x, norm=self.norm){RUN}"""


def manual_net(example: ModuleType, text: str, *arguments: str) -> Any:
    """An instance of a class of the manual, 4.2.2.1, with the layer and the filling of the example."""
    scope: dict[str, Any] = {"calibrator_custom": calibrator_custom, "np": np, "rpn": example.rpn}
    exec(text, scope)
    net = scope["Net"](*arguments)
    (details,) = net.main_model.get_input_details()
    scope["fill_inputImg2main"] = lambda x, norm=True: example.stages.fill_inputImg2main(x, details, norm)
    return net


def test_the_calibrator_of_the_manual(example: ModuleType, codes: Models, tmp_path: Path) -> None:
    """Writes what the example writes."""
    (main, stage2), inis = codes.of("Float"), ("input_config.ini", "input_config_stage2.ini")
    net = manual_net(example, CALIBRATOR, main, str(codes.folder / inis[0]), stage2, str(codes.folder / inis[1]))
    targets = [str(tmp_path / "main.sim"), str(tmp_path / "stage2.sim")]
    pictures = (example.stages.read_picture(path) for path in utils.all_path(str(PICTURES / "calibration")))
    net.convert(pictures, num_process=2, fix_model=targets, quant_level="L2")
    for target, file in zip(targets, codes.of("Fixed"), strict=True):
        assert Path(target).read_bytes() == Path(file).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_simulator_of_the_manual(example: ModuleType, codes: Models, kind: str) -> None:
    """Finds what the example finds, number for number."""
    pictures = [picture for picture, _, _ in example.quality.read_truth()][:6]
    found = manual_net(example, SIMULATOR, *codes.of(kind), kind)(iter(pictures), num_process=2)
    expected = example.Net(*codes.of(kind), kind)(pictures)
    for values, (_, *others) in zip(found, expected, strict=True):
        assert all(np.array_equal(value, other) for value, other in zip(values, others, strict=True))


def test_the_inis_of_the_manual(example: ModuleType, manual_inis: Models) -> None:
    """Codes of a fixed first stage are no float32: the manual's class has to dequantise them as the example does
    (`test_integers_find_what_the_float_models_find`), or the second ini to say RAWDATA_S16_NHWC."""
    pictures = [picture for picture, _, _ in example.quality.read_truth()][:2]
    scores, _ = manual_net(example, SIMULATOR, *manual_inis.of("Float"), "Float")(pictures)[1]
    assert scores.shape == (32, 5)
    for kind in ("Fixed", "Offline"):
        net = manual_net(example, SIMULATOR, *manual_inis.of(kind), kind)
        source, target = net.main_model.get_output_details()[2], net.second_model.get_input_details()[0]
        assert (source["dtype"], target["dtype"]) == (np.int16, np.float32) and "quantization" not in target
        with pytest.raises(ValueError, match="'conv5_3': expected .*float32.* got .*int16"):
            net(pictures)


# -- the layer between -------------------------------------------------------------------------------------------------
def test_proposals(example: ModuleType) -> None:
    """Two anchors speak of one object, a third one of another; the rest is filled with the best region."""
    layer = example.rpn.ProposalLayer(stride=10, sizes=(20, 40), ratios=(1, 4), regions=5, smallest=3)
    anchors = layer.anchors(3, 5)
    assert anchors.shape == (60, 4)
    assert anchors[0].tolist() == [-5, -5, 15, 15] and anchors[2].tolist() == [0, -15, 10, 25]
    assert anchors[4 * (1 * 5 + 2)].tolist() == [15, 5, 35, 25]  # row 1, column 2
    wanted = np.array([[11.0, 4, 33, 26], [11, 4, 33, 27], [2, 3, 30, 25], [1, 1, 3, 3]])
    chosen = np.array([28, 32, 0, 20])
    codes, scores = np.zeros((60, 4)), np.full(60, 0.1)
    codes[chosen] = example.rpn.encode_boxes(wanted, anchors[chosen])
    np.testing.assert_allclose(example.rpn.decode_boxes(codes[chosen], anchors[chosen]), wanted, atol=1e-5)
    scores[chosen] = [0.9, 0.8, 0.7, 0.95]
    layer.candidates = 4
    info = np.array([[15.0, 25.0, 2.0]])  # 30 x 50 pixels of the input; the least side is 6 of them
    probabilities = np.concatenate([1 - scores.reshape(1, 3, 5, 4), scores.reshape(1, 3, 5, 4)], 3)
    rois = layer.forward([probabilities, codes.reshape(1, 3, 5, 16), info])
    assert rois.shape == (5, 5) and rois.dtype == np.float32 and not rois[:, 0].any()
    np.testing.assert_allclose(rois[:, 1:], wanted[[0, 2, 0, 0, 0]], atol=1e-5)
    layer.smallest = 100
    assert layer.forward([probabilities, codes.reshape(1, 3, 5, 16), info])[:, 1:].tolist() == [[0, 0, 50, 30]] * 5


def test_pictures_of_another_shape(example: ModuleType) -> None:
    details = {"name": "data", "shape": [1, 128, 96, 3]}
    board: dict[str, Any] = {"index": 0, "dtype": np.uint8, "layouts": "NHWC", "training_input_formats": "BGR"}
    board |= {"input_formats": "BGR", "input_width_alignment": 1, "input_height_alignment": 1}
    details |= board
    picture = np.full((40, 60, 3), 200, np.uint8)
    filled, scale = example.stages.fill_inputImg2main(picture, details, norm=False)
    assert filled.shape == (1, 128, 96, 3) and scale == 1.6
    assert (filled[0, :64] == 200).all() and (filled[0, 64:] == [103, 116, 123]).all()
    real, _ = example.stages.fill_inputImg2main(picture, details, norm=True)
    np.testing.assert_array_equal(real, filled - example.stages.MEAN)
    swapped, _ = example.stages.fill_inputImg2main(picture, {**details, "input_formats": "RGB"}, norm=False)
    assert np.array_equal(swapped[..., ::-1], filled)


@pytest.mark.parametrize(
    ("form", "alignment", "shape"),
    [
        ("YUV_NV12", (2, 2), [1, 192, 96, 1]),
        ("YUV_NV12", (64, 40), [1, 240, 128, 1]),
        ("BGRA", (512, 1), [1, 128, 128, 4]),
    ],
)
def test_the_picture_fills_its_pixels_not_the_bytes_around(
    example: ModuleType, form: str, alignment: tuple[int, int], shape: list[int]
) -> None:
    details: dict[str, Any] = {"name": "data", "index": 0, "dtype": np.uint8, "layouts": "NHWC", "shape": shape}
    details |= {"training_input_formats": "BGR", "input_formats": form, "input_width_alignment": alignment[0]}
    details |= {"input_height_alignment": alignment[1], "picture_shape": [1, 128, 96, 3]}
    picture = np.full((40, 60, 3), 200, np.uint8)
    converted, scale = example.stages.fill_inputImg2main(picture, details, norm=False)
    assert converted.shape == tuple(shape) and scale == 1.6
    assert (converted[0, :64, :96, 0] == 200).all() and (converted[0, 64:128, :96, 0] < 120).all()
    assert not converted[0, :64, 96:].any()
