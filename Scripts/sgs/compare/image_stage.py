"""Offline .img files as stages: their commands are executed, and pieces of tensors put together as they are made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sgs.compare.match import scales_of
from sgs.compare.pieces import Made, Piece, made_tensors
from sgs.compare.stage import STAGE, Stage, StageTensor
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.img import OfflineEngine
from sgs.numeric.quantise import Array
from sgs.simulation import Simulator


class ImageStage(Stage):
    """The stage of an opened .img. Raises UserError for one that does not say what its layers make."""

    kind = "Offline"

    def __init__(self, simulator: Simulator) -> None:
        assert simulator.image is not None
        self.path = simulator.path
        self.image = simulator.image
        self.inputs = [port.name for port in simulator.inputs]
        self.outputs = [port.name for port in simulator.outputs]
        self._simulator = simulator
        self._engine = OfflineEngine(self.image, threads=simulator.threads)
        if not any(layer.results for layer in self.image.layers):
            reason = "does not say what its layers make: it is of an older version"
            raise UserError(reason, stage=STAGE, file=self.path, remedy="compile the fixed .sim again")

    @cached_property
    def scales(self) -> Mapping[str, Array]:
        return scales_of(self.image.config, self.names())

    @property
    def calibration(self) -> Mapping[str, Any]:
        return dict(self.image.config.get("calibration", {}))

    @cached_property
    def _made(self) -> Sequence[Made]:
        return made_tensors(self.image)

    @property
    def missing(self) -> Mapping[str, str]:
        return {made.tensor.name: made.reason for made in self._made if made.reason}

    def _described(self) -> Iterator[StageTensor]:
        for port in self._simulator.inputs:
            yield StageTensor(port.name, port.shape, port.dtype.numpy.name, "", port.quant)
        for made in self._made:
            ref = made.tensor
            if made.pieces:
                quant = None if ref.dtype.is_float else ref.quant
                yield StageTensor(ref.name, ref.shape, ref.dtype.numpy.name, made.operator, quant)

    def feeds(self, preprocessors: Sequence[Preprocessor], sample: Sample) -> dict[str, Array]:
        return self._simulator.feeds(preprocessors, sample)

    def _tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]:
        yield from ((name, feeds[name]) for name in self.inputs if name in wanted)
        yield from put_together(self._engine, [made for made in self._made if made.tensor.name in wanted], feeds)


def put_together(
    engine: OfflineEngine, tensors: Sequence[Made], feeds: Mapping[str, Array]
) -> Iterator[tuple[str, Array]]:
    """(name, value) of the tensors that have pieces, as each is complete."""
    pieces: dict[int, list[tuple[Made, Piece]]] = {}
    for made in tensors:
        for piece in made.pieces:
            pieces.setdefault(piece.command, []).append((made, piece))
    begun: dict[str, Array] = {}
    for number, memory in engine.watch(feeds):
        for made, piece in pieces.get(number, ()):
            name, dtype = made.tensor.name, made.tensor.dtype.numpy
            if name not in begun:
                begun[name] = np.empty(made.tensor.shape, dtype)
            box = tuple(slice(b, b + extent) for b, extent in zip(piece.begin, piece.shape, strict=True))
            begun[name][box] = np.ndarray(piece.shape, dtype, memory[piece.space][piece.buffer].data, piece.offset)
            if piece is made.pieces[-1]:
                yield name, begun.pop(name)
