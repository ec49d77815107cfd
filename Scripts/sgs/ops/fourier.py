"""DFT and STFT of ONNX as products with a constant matrix; and the windows and mel filters that stand around them.

A transform is linear, so the transforms of unit vectors are its matrix, whatever its form: real or complex operand,
forward or inverse, half of the spectrum or all of it. A complex number is two entries of the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgs.ir.graph import Tensor
from sgs.numeric.quantise import Array
from sgs.ops._import import fully_connected, single_operand
from sgs.registry import IMPORT_ONNX, ONNX_EXAMPLES, ImportContext, OnnxCase, Shape


@dataclass(frozen=True)
class _Transform:
    """Of `length` entries: `inverse`, and `onesided`, half of the spectrum being all there is to know."""

    length: int
    inverse: bool
    onesided: bool

    def matrix(self, entries: int, parts: int) -> Array:
        """float64 [result entries, result parts, entries, parts], part 0 of a number being its real one."""
        units = np.eye(entries)
        columns = [self._of(unit) for unit in (units, 1j * units)[:parts]]  # each [entries, result entries]
        spectra = np.stack(columns, 1)  # [entries, parts, result entries]
        results = [spectra.real] if not np.iscomplexobj(spectra) else [spectra.real, spectra.imag]
        return np.stack(results, -1).transpose(2, 3, 0, 1)

    def _of(self, rows: Array) -> Array:
        if self.inverse:
            return np.asarray((np.fft.irfft if self.onesided else np.fft.ifft)(rows, self.length))
        spectrum = np.fft.fft(rows, self.length)
        return np.asarray(spectrum[:, : self.length // 2 + 1] if self.onesided else spectrum)


def _transformed(ctx: ImportContext, x: Tensor, matrix: Array) -> Tensor:
    """x [..., entries, parts] times a matrix [K, R, entries, parts] → [..., K, R]."""
    count, parts = matrix.shape[:2]
    weight = matrix.reshape(count * parts, -1)
    rows = ctx.emit("RESHAPE", x, shape=(*x.shape[:-2], weight.shape[1]))
    return ctx.emit("RESHAPE", fully_connected(ctx, rows, weight), shape=(*x.shape[:-2], count, parts))


@IMPORT_ONNX.row("DFT")
def import_dft(ctx: ImportContext) -> list[Tensor]:
    """Along one axis, which is brought in front of the last for it."""
    x = ctx.inputs[0]
    assert x is not None
    rank = len(x.shape)
    given = single_operand(ctx, 2, "axis", int) if ctx.opset >= 20 else int(ctx.attrs.get("axis", 1))
    axis = (-2 if given is None else given) % rank
    if axis == rank - 1 or x.shape[-1] not in (1, 2):
        raise ctx.refuse(f"axis {axis} of a tensor of shape {x.shape}", "the last axis holds 1 or 2 parts of a number")
    inverse, onesided = bool(ctx.attrs.get("inverse", 0)), bool(ctx.attrs.get("onesided", 0))
    length = single_operand(ctx, 1, "length", int)
    if length is None:
        length = 2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis]
    perm = (*(a for a in range(rank) if a not in (axis, rank - 1)), axis, rank - 1)
    matrix = _Transform(length, inverse, onesided).matrix(x.shape[axis], x.shape[-1])
    if axis == rank - 2:
        return [_transformed(ctx, x, matrix)]
    y = _transformed(ctx, ctx.emit("TRANSPOSE", x, perm=perm), matrix)
    return [ctx.emit("TRANSPOSE", y, perm=tuple(int(a) for a in np.argsort(perm)))]


@IMPORT_ONNX.row("STFT")
def import_stft(ctx: ImportContext) -> list[Tensor]:
    """Frames are gathered; the window is part of the matrix."""
    x, step, window = ctx.inputs[0], single_operand(ctx, 1, "frame step", int), None
    assert x is not None and step is not None
    if len(ctx.inputs) > 2 and ctx.inputs[2] is not None:
        window = ctx.constant(2, "window")
    batch, samples, parts = (*x.shape, 1)[:3]
    length = single_operand(ctx, 3, "frame length", int) or (samples if window is None else window.size)
    if window is not None and window.size != length:
        raise ctx.refuse(f"a window of {window.size} for frames of {length}", "give it the length of a frame")
    frames = (samples - length) // step + 1
    if frames <= 0:
        raise ctx.refuse(f"frames of {length} in a signal of {samples}")
    places = np.arange(frames)[:, None] * step + np.arange(length)
    framed = ctx.emit("GATHER", x, places.reshape(-1).astype(np.int32), axis=1)
    matrix = _Transform(length, False, bool(ctx.attrs.get("onesided", 1))).matrix(length, parts)
    if window is not None:
        matrix = matrix * window.reshape(-1, 1)
    return [_transformed(ctx, ctx.emit("RESHAPE", framed, shape=(batch, frames, length, parts)), matrix)]


@IMPORT_ONNX.row("HannWindow", "HammingWindow", "BlackmanWindow")
def import_window(ctx: ImportContext) -> Sequence[Tensor]:
    """Its length is a constant, and it is one then."""
    raise ctx.needs_constant(0, "size")


@IMPORT_ONNX.row("MelWeightMatrix")
def import_mel(ctx: ImportContext) -> Sequence[Tensor]:
    """All its operands are constants, and it is one then."""
    for index, what in enumerate(("number of bins", "transform length", "sample rate", "lowest", "highest frequency")):
        ctx.constant(index, what)
    raise ctx.refuse("it could not be computed", "check its operands")


def _dft_cases() -> list[OnnxCase]:
    real: dict[str, Shape] = {"x": (2, 6, 9, 1)}
    pairs: dict[str, Shape] = {"x": (2, 6, 9, 2)}
    return [
        OnnxCase("DFT", real, attrs={"axis": 1}),
        OnnxCase("DFT", real, attrs={"axis": 2, "onesided": 1}),
        OnnxCase("DFT", real, {"n": np.array(12)}, {"axis": 2}),
        OnnxCase("DFT", pairs, {"n": np.array(7)}, {"axis": 2}),
        OnnxCase("DFT", pairs, attrs={"axis": 1, "inverse": 1}),
        OnnxCase("DFT", pairs, {"a": np.array(1)}, order=("x", "", "a"), opset=20),
    ]


_SIGNAL: dict[str, Shape] = {"s": (2, 37, 1)}
_STEP, _WINDOW = {"step": np.array(5)}, {"w": np.linspace(0.1, 1, 12, dtype=np.float32)}
ONNX_EXAMPLES.add("DFT", _dft_cases())
ONNX_EXAMPLES.add(
    "STFT",
    [
        OnnxCase("STFT", _SIGNAL, {**_STEP, **_WINDOW}),
        OnnxCase("STFT", _SIGNAL, {**_STEP, "n": np.array(9)}, order=("s", "step", "", "n")),
        OnnxCase("STFT", _SIGNAL, {**_STEP, **_WINDOW, "n": np.array(12)}, {"onesided": 0}),
    ],
)
for _op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
    _forms: list[dict[str, Any]] = [{}, {"periodic": 0}]
    ONNX_EXAMPLES.add(_op, [OnnxCase(_op, {}, {"n": np.array(9)}, form) for form in _forms])
ONNX_EXAMPLES.add(
    "MelWeightMatrix",
    [
        OnnxCase(
            "MelWeightMatrix",
            {},
            {
                "bins": np.array(8),
                "length": np.array(16),
                "rate": np.array(8192),
                "low": np.array(0, np.float32),
                "high": np.array(4096, np.float32),
            },
        )
    ],
)
