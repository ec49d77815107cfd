"""What the quantiser makes of networks that are not all sums of products: markers, integers of the network's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnx_snippets import Net
from sgs.builder import GraphBuilder
from sgs.config.chips import load_chip
from sgs.config.input_config import read_input_config
from sgs.data.preprocess import Preprocessor
from sgs.engine import FixedEngine, run_reference
from sgs.errors import UserError
from sgs.img import OfflineEngine
from sgs.numeric.quantise import quantise, symmetric_params
from sgs.numeric.types import DType
from sgs.pipelines import Calibrated, CalibrationOptions, calibrate, compile_fixed, convert
from sgs.quant.edit import build_fixed
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.prepare import prepare
from sgs.sim import write_sim
from sgs.simulation import Simulator

LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(("value", "bound"), [(LOWEST, 2.0), (-65504.0, 2.0), (3.0, 3.0), (-1000.0, 1000.0)])
def test_a_fill_that_only_marks_does_not_widen_the_range(value: float, bound: float) -> None:
    build = GraphBuilder()
    x = build.input("x", (1, 4, 6, 3))
    padded = build("PADV2", x, output="padded", paddings=((0, 0), (1, 0), (0, 2), (0, 0)), value=value)
    window = {"kernel": (2, 3), "strides": (1, 1), "pads": (0, 0, 0, 0), "activation": "NONE"}
    prepared = prepare(build.output(build("MAX_POOL_2D", padded, output="y", **window)))
    seen = {"x": TensorRange(-2, 1), "y": TensorRange(-2, 1)}
    padded_too = {**seen, "padded": TensorRange(min(-2.0, value), max(1.0, value))}
    for known in (padded_too, seen) if bound == 2 else (padded_too,):  # statistics need not know a marker
        graph = build_fixed(prepared, QuantPlan(known, {}))
        quant = graph["padded"].quant
        assert quant is not None and quant.same_codes(graph["x"].quant)
        assert float(quant.scale[0]) == pytest.approx(bound / 32767)
        codes = np.random.default_rng(0).integers(-32767, 32768, (1, 4, 6, 3)).astype(np.int16)
        feeds, truth = {"x": codes}, run_reference(graph, {"x": codes})
        assert np.array_equal(FixedEngine(graph).run(feeds)["y"], truth["y"])
        fill = {LOWEST: -32768, -65504.0: -32768, 3.0: 32767, -1000.0: -32767}[value]
        assert (truth["padded"][0, 0] == fill).all()


@pytest.mark.filterwarnings("error")
def test_values_beyond_every_code_saturate_in_silence() -> None:
    params = symmetric_params(1e-3, DType.INT16)
    assert quantise(np.array([LOWEST, -LOWEST, -np.inf]), params, DType.INT16).tolist() == [-32768, 32767, -32768]


WORDS = np.array([[3, 8, 0, 0, 5, 7]])


def embedding(folder: Path, input_format: str) -> Calibrated:
    """A network that reads numbers of words, converted and calibrated in `folder`."""
    net = Net()
    table = net.constant(np.random.default_rng(0).normal(0, 1, (9, 5)).astype(np.float32))
    vectors = net("Gather", table, net.input("words", *WORDS.shape, dtype=TensorProto.INT32), axis=0)
    model = net.model(net("MatMul", vectors, net.weights(5, 4)))
    onnx.save(model, folder / "model.onnx")
    (folder / "words.png").write_bytes(b"x")
    (folder / "script.py").write_text(
        f"import numpy as np\ndef image_preprocess(path, norm=True):\n    return np.array({WORDS.tolist()})\n",
        encoding="utf-8",
    )
    (folder / "input_config.ini").write_text(
        f"[INPUT_CONFIG]\ninputs=words;\ntraining_input_formats={input_format};\ninput_formats={input_format};\n"
        f"[OUTPUT_CONFIG]\noutputs={model.graph.output[0].name};\ndequantizations=TRUE;\n",
        encoding="utf-8",
    )
    config = read_input_config(folder / "input_config.ini")
    _, graph = convert("onnx", {"model_file": folder / "model.onnx"}, config)
    write_sim(graph, folder / "float.sim", stage="float")
    script = Preprocessor(folder / "script.py")
    return calibrate(graph, config, [script], [(folder / "words.png",)], CalibrationOptions("L2", processes=1))


def test_integers_of_the_network_stay_integers(tmp_path: Path) -> None:
    graph = embedding(tmp_path, "RAWDATA_S16_NHWC").graph
    assert graph["words"].dtype is DType.INT16
    (output,) = graph.outputs
    feeds = {"words": WORDS.astype(np.int16)}
    values = FixedEngine(graph).run(feeds)[output]
    assert np.array_equal(run_reference(graph, feeds)[output], values)
    assert np.array_equal(OfflineEngine(compile_fixed(graph, load_chip("pcupid"))).run(feeds)[output], values)
    simulator = Simulator(tmp_path / "float.sim")
    fed = simulator.feeds([Preprocessor(tmp_path / "script.py")], (tmp_path / "words.png",))
    assert fed["words"].dtype == np.int32
    np.testing.assert_allclose(values, simulator.run(fed)[output], atol=0.05)


def test_integers_are_refused_as_real_numbers(tmp_path: Path) -> None:
    told = "input_formats, line 4: 'words': RAWDATA_F32_NHWC, and the network reads int32 here .*RAWDATA_S16_NHWC"
    with pytest.raises(UserError, match=told):
        embedding(tmp_path, "RAWDATA_F32_NHWC")
