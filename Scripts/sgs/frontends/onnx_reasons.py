"""Why operators have no meaning here, for messages."""

from __future__ import annotations

from onnx import NodeProto

from sgs.errors import OPERATOR_LIST
from sgs.frontends.tflite import rows as tflite_rows

_REASONS: dict[tuple[str, ...], str] = {
    ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"): "works on text",
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    ): "gives random values, which differ from run to run",
    ("Adagrad", "Adam", "Gradient", "Momentum"): "is for training",
    ("ImageDecoder",): "reads picture files: feed pictures",
    ("NonZero", "Unique"): "gives results whose shape depends on the values",
}
_BY_OPERATOR = {op: reason for ops, reason in _REASONS.items() for op in ops}
_BY_DOMAIN = {
    "ai.onnx.ml": "is classical machine learning on tables: do it outside of the network",
    "ai.onnx.training": "is for training",
    "ai.onnx.preview.training": "is for training",
}


def reason_of(node: NodeProto, key: str) -> tuple[str, str]:
    """What a refusal says of a node whose operator goes by `key`: (reason, remedy)."""
    if node.domain == tflite_rows.DOMAIN:
        return tflite_rows.refusal(node)
    why = _BY_DOMAIN.get(node.domain) or _BY_OPERATOR.get(key)
    return f"operator {key} is not supported" + (f": it {why}" if why else ""), OPERATOR_LIST
