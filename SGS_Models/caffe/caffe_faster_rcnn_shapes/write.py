"""Write the weights of the two-stage shapes detector as Caffe has them: the two ``.caffemodel`` of this folder.

They are those of ``../../onnx/onnx_faster_rcnn_shapes``, whose ``train.py`` trains them, with the batch normalisations
already in the convolutions. Caffe need not be installed.

Needs onnx, protobuf and numpy. Run ``python write.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

HERE = Path(__file__).resolve().parent
MODELS = HERE.parents[1]
sys.path.insert(0, str(MODELS / "resource"))

from caffe_weights import write_weights  # noqa: E402

LAYERS = {
    "": ("conv1", "conv2", "conv3", "conv4", "conv5_3", "rpn/output", "rpn_cls_score", "rpn_bbox_pred"),
    "_stage2": ("fc6", "fc7", "cls_score", "bbox_pred"),
}
"""Ending of a stage's files to its layers with weights, in the order of the ONNX nodes."""

if __name__ == "__main__":
    for ending, layers in LAYERS.items():
        graph = onnx.load(MODELS / "onnx" / "onnx_faster_rcnn_shapes" / f"onnx_faster_rcnn_shapes{ending}.onnx").graph
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        nodes = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        blobs = {layer: [values[name] for name in node.input[1:]] for layer, node in zip(layers, nodes, strict=True)}
        write_weights(HERE / f"{HERE.name}{ending}.caffemodel", blobs)
