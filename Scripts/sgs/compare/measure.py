"""Two models side by side on samples: the errors of every tensor, and where its values lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sgs.compare.isolated import Isolated
from sgs.compare.match import Alignment, counterparts
from sgs.compare.metrics import Spread, Sums
from sgs.compare.sim_stage import SimStage
from sgs.compare.stage import Stage, StageTensor
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.quant.masks import fading_tensors
from sgs.quant.prepare import range_sources
from sgs.quant.selection import operands, selected

PIXELS = "/pixels"  # behind an input's name: what is made of its NV12 (quant.boundary)


@dataclass
class Measured:
    """Of one tensor of B: its errors as it comes out, those of its maker alone where there are any, where its values
    lie, and how the first sample's values look, of inputs only: (A's, B's), real."""

    accumulated: Sums
    isolated: Sums
    spread: Spread
    first: tuple[Array, Array] | None = None


@dataclass
class Measurement:
    """`pairs`: tensor of B → its counterpart of A, in B's execution order; `found` has the errors of those that are
    compared; `unmatched` are tensors of B without a counterpart."""

    a: Stage
    b: Stage
    samples: int
    pairs: dict[str, str]
    found: dict[str, Measured] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()


def measure(a: Stage, b: Stage, preprocessors: Sequence[Preprocessor], samples: Iterable[Sample]) -> Measurement:
    """B beside the reference A on the samples. Memory is bounded by what is alive in either at any point."""
    side = _SideBySide(a, b)
    count = 0
    for sample in samples:
        side.run(a.feeds(preprocessors, sample), b.feeds(preprocessors, sample))
        count += 1
    known = side.pairs.keys() | side.aside
    unmatched = tuple(name for name in b.names() if name not in known)
    return Measurement(a, b, count, side.pairs, side.found, unmatched)


def code_span(tensor: StageTensor) -> tuple[float, float] | None:
    """The real numbers that a tensor's first and last codes stand for; None where it has none."""
    if tensor.quant is None:
        return None
    dtype = DType.of(np.dtype(tensor.dtype))
    scale, zero = float(tensor.quant.scale[0]), int(tensor.quant.zero_point[0])
    lowest = max(dtype.qmin, -dtype.qmax)  # of symmetric codes
    return (lowest - zero) * scale, (dtype.qmax - zero) * scale


def jumping(measurement: Measurement) -> set[str]:
    """Tensors of B whose errors do not tell how good it is: plain integers that either computes, which are right or
    wrong, and what is selected, which is something else at once. A graph of either model tells what is selected."""
    a, b, pairs = measurement.a, measurement.b, measurement.pairs
    if b.graph is not None:
        found = selected(b.graph)
    else:
        chosen = set() if a.graph is None else selected(a.graph)
        found = {name for name, other in pairs.items() if other in chosen}
    counted = _integers(a)
    return found | _integers(b) | {name for name, other in pairs.items() if other in counted}


def _integers(stage: Stage) -> set[str]:
    """What a stage computes as plain integers."""
    whole = ("int", "uint", "bool")
    return {n for n, t in stage.described.items() if t.operator and t.quant is None and t.dtype.startswith(whole)}


class _SideBySide:
    def __init__(self, a: Stage, b: Stage) -> None:
        self.a, self.b = a, b
        self.found: dict[str, Measured] = {}
        self.pairs = counterparts(a, b)
        self.aside = _bytes_of_pictures(b, self.pairs) | _marked(b)
        self._alignments: dict[str, Alignment] = {}

    def _count_uses(self) -> Counter[str]:
        """Tensor of A → how often a sample asks for it: as what tensors of B stand for, and as what operators read."""
        uses = Counter(self.pairs.values())
        if isinstance(self.b, SimStage):
            for node in self.b.graph.nodes:
                uses.update(self.pairs[name] for name in operands(self.b.graph, node) if name in self.pairs)
        return uses

    def run(self, feeds_a: Mapping[str, Array], feeds_b: Mapping[str, Array]) -> None:
        """Take in one sample."""
        wanted = list(dict.fromkeys(self.pairs.values()))
        reference = _Reference(self.a.tensors(feeds_a, wanted), self._count_uses())
        lone = Isolated(self.b, self.pairs) if isinstance(self.b, SimStage) else None

        def truth(name: str) -> Array:
            """What A has for a tensor of B, as B lays and scales it."""
            other = self.pairs[name]
            real = _unscaled(self.a, other, self.a.real(other, reference[other]))
            return _scaled(self.b, name, self._alignments[name](real))

        def done(name: str) -> None:
            reference.done(self.pairs[name])

        for name, held in self.b.tensors(feeds_b):
            self._align(name, held, reference)
            alone = None if lone is None else lone.run(name, held, truth, done)
            if name in self.pairs:
                if name not in self.aside:
                    self._add(name, truth(name), held, alone if lone is not None and lone.measured(name) else None)
                done(name)

    def _align(self, name: str, held: Array, reference: _Reference) -> None:
        """Find out how a tensor is laid out beside its counterpart; one that cannot be it has none from now on."""
        if name not in self.pairs or name in self._alignments:
            return
        other = self.pairs[name]
        pair = self.a.real(other, reference[other]), self.b.real(name, held)
        alignment = Alignment(_unscaled(self.a, other, pair[0]), _unscaled(self.b, name, pair[1]))
        if alignment.found:
            self._alignments[name] = alignment
        else:
            del self.pairs[name]

    def _add(self, name: str, truth: Array, held: Array, alone: Array | None) -> None:
        value = self.b.real(name, held)
        if name not in self.found:
            tensor = self.b.described[name]
            step = 0.0 if tensor.quant is None else float(tensor.quant.scale[0])
            first = (truth, value) if self.pairs[name] in self.a.inputs else None
            spread = Spread(code_span(tensor), step, self.b.scales.get(name, 1.0))
            self.found[name] = Measured(Sums(), Sums(), spread, first)
        found = self.found[name]
        found.spread.add(truth, value)
        plain = _unscaled(self.b, name, truth)
        found.accumulated.add(plain, _unscaled(self.b, name, value))
        if alone is not None:
            found.isolated.add(plain, _unscaled(self.b, name, self.b.real(name, alone)))


class _Reference:
    """Values of A as they are asked for: its stream goes on until it gives the one that is wanted, and what it gave
    before is kept until it has been asked for as often as it is used."""

    def __init__(self, stream: Iterator[tuple[str, Array]], uses: Counter[str]) -> None:
        self._stream, self._uses = stream, uses
        self._kept: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        while name not in self._kept:
            made, value = next(self._stream)
            self._kept[made] = value
        return self._kept[name]

    def done(self, name: str) -> None:
        """One use is over."""
        self._uses[name] -= 1
        if not self._uses[name]:
            self._kept.pop(name, None)


def _scaled(stage: Stage, name: str, value: Array) -> Array:
    """Real numbers of the network as a tensor of the stage has them: channels multiplied by their scales, where
    calibration equalised them (quant.equalise)."""
    scale = stage.scales.get(name)
    return value if scale is None else value * scale


def _unscaled(stage: Stage, name: str, value: Array) -> Array:
    scale = stage.scales.get(name)
    return value if scale is None else value / scale


def _bytes_of_pictures(b: Stage, pairs: Mapping[str, str]) -> set[str]:
    """What a network whose pictures are normalised inside is fed, and makes of it before: nobody else has such. In an
    .img pixels may be codes already."""
    if b.kind not in ("Fixed", "Offline"):
        return set()
    return {
        name
        for name, tensor in b.described.items()
        if name not in pairs and tensor.dtype == "uint8" and (tensor.quant is None or name.endswith(PIXELS))
    }


def _marked(b: Stage) -> set[str]:
    """Tensors of a fixed network that need not hold what the float network does: markers beside values, and values so
    low that a softmax does not see them (quant.masks)."""
    if b.kind != "Fixed" or b.graph is None:
        return set()
    return {*range_sources(b.graph), *fading_tensors(b.graph)}
