"""Networks of the usual families as PyTorch exports them: equal to onnxruntime, with as few Transposes as can be."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx_import import CONVOLUTIONAL, LIMIT_ERROR, feeds_for, largest_error, ports, transposes

from sgs.frontends.onnx_import import import_onnx
from sgs.passes.pipeline import optimise

torch_networks = pytest.importorskip("torch_networks", reason="torch, torchvision and onnxscript are not installed")
# its output is [1, numbers, boxes] of rank 3, channels first: as the author wrote it
AT_THE_OUTPUT = {"yolo_like": 1}
OLD_EXPORTER = ("shufflenet_v2_x1_0", "bert_like", "lstm_tagger")


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [*((name, True) for name in torch_networks.NETWORKS), *((name, False) for name in OLD_EXPORTER)],
)
def test_network(name: str, dynamo: bool, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.onnx"
    torch_networks.export(name, file, dynamo=dynamo)
    model = onnx.load(file)
    graph = import_onnx(file, skip_simplify=True)
    optimise(graph)
    assert largest_error(graph, file, feeds_for(ports(model)[0])) <= LIMIT_ERROR
    allowed = AT_THE_OUTPUT.get(name, 0) if name in CONVOLUTIONAL else transposes(model.graph)
    assert transposes(graph) <= allowed
