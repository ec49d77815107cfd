"""What every stage of a network has in common: named tensors, and their values for a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from sgs.config.nearest import did_you_mean
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError, raise_all
from sgs.ir import Graph
from sgs.numeric.quantise import Array, QuantParams, dequantise

STAGE = "tensors"


@dataclass(frozen=True, eq=False)
class StageTensor:
    """A tensor that a stage can give. `shape` is that of one frame, None where it is only known once the model has
    run; `dtype` numpy's name for what it is held in; `operator` what makes it, "" of inputs and constants; `quant` what
    its codes stand for, None of real numbers and plain integers."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    operator: str
    quant: QuantParams | None = None


class Stage(ABC):
    """A model of any stage, opened by `stages.open_stage`. `kind`: "ONNX", "TFLite", "Caffe" and so on of source
    models, else "Debug", "Float", "Fixed" or "Offline"; `graph` is that of a .sim; `runner` whose values it gives;
    `rounded` the tensors of real numbers that the runner makes of rounded ones."""

    path: Path
    kind: str
    graph: Graph | None = None
    runner = "this toolchain"
    rounded: Collection[str] = ()
    inputs: Sequence[str]
    outputs: Sequence[str]

    @cached_property
    def described(self) -> Mapping[str, StageTensor]:
        """Every tensor that it can give, by name, in execution order: inputs first, outputs included."""
        return {tensor.name: tensor for tensor in self._described()}

    @property
    def scales(self) -> Mapping[str, Array]:
        """Tensor → what its channels, the last axis, are multiplied by beside those of the network as it came: those
        of equalised fixed networks (quant.equalise)."""
        return {}

    @property
    def calibration(self) -> Mapping[str, Any]:
        """How a fixed network came about, as its file tells."""
        return {}

    @property
    def missing(self) -> Mapping[str, str]:
        """Tensors of the network that it cannot give, and why."""
        return {}

    @abstractmethod
    def _described(self) -> Iterator[StageTensor]: ...

    @abstractmethod
    def feeds(self, preprocessors: Sequence[Preprocessor], sample: Sample) -> dict[str, Array]:
        """What it is fed for a sample: array by input name. Raises UserError."""

    @abstractmethod
    def _tensors(self, feeds: Mapping[str, Array], wanted: Collection[str]) -> Iterator[tuple[str, Array]]:
        """`tensors` of known names."""

    def names(self) -> list[str]:
        """Tensors that it can give, in execution order: inputs first, outputs included."""
        return list(self.described)

    def chosen(self, words: Sequence[str]) -> list[str]:
        """The tensors that are called or, by the wildcards of file names, match one of the patterns, in execution
        order. A word that is no tensor's name holds patterns between commas: names may hold commas and brackets.
        Raises UserError for all patterns that mean none."""
        known = self.names()
        chosen: set[str] = set()
        problems = []
        for pattern in (part for word in words for part in ([word] if word in self.described else word.split(","))):
            if not pattern:
                continue
            found = [pattern] if pattern in self.described else [name for name in known if fnmatchcase(name, pattern)]
            chosen.update(found)
            if not found:
                problems.append(self._unknown(pattern))
        raise_all(problems, stage=STAGE, file=self.path)
        return [name for name in known if name in chosen]

    def _unknown(self, name: str) -> UserError:
        if name in self.missing:
            reason, remedy = self.missing[name], "look at it in the .sim that the .img was compiled from"
        else:
            reason, remedy = "there is no such tensor", did_you_mean(name, [*self.described, *self.missing])
        return UserError(reason, stage=STAGE, file=self.path, node=name, remedy=remedy)

    def tensors(self, feeds: Mapping[str, Array], names: Collection[str] | None = None) -> Iterator[tuple[str, Array]]:
        """(name, value) of the tensors that are named, all of them by default, in execution order, each as it is held:
        real numbers or codes. What is not needed any more is let go of meanwhile.

        Raises UserError for names that there are not.
        """
        if names is not None:
            unknown = [name for name in names if name not in self.described]
            raise_all([self._unknown(name) for name in unknown], stage=STAGE, file=self.path)
        return self._tensors(feeds, frozenset(self.described if names is None else names))

    def real(self, name: str, held: Array) -> Array:
        """What a value of the tensor stands for: codes become float32, other numbers stay."""
        quant = self.described[name].quant
        return held if quant is None else dequantise(held, quant)
