"""Networks of several models: a class of the user's with a `forward`, run on many samples."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sgs.data.files import atomic_outputs
from sgs.data.images import Sample
from sgs.data.shards import map_threads, processors
from sgs.numeric.quantise import Array
from sgs.pipelines import CalibrationOptions, calibrate_on
from sgs.products import check_outputs
from sgs.python_api.checks import AnyPath, one_of, path_of, positive, value_errors
from sgs.python_api.models import Calibrator, private_states
from sgs.quant.gather import RecordedFeeds, Wrap
from sgs.quant.levels import LEVELS
from sgs.quant.parameters import QuantParameter, check_parameters, parse_parameters, read_parameters, shared_out
from sgs.report.progress import progress
from sgs.sim import write_sim

Result = TypeVar("Result")
NUM_PROCESS = 10
Parameters = list[dict[str, Any]]


class Network:
    """A network of several models. Subclasses make the models in `__init__` and say in `forward` how they are run."""

    def forward(self, *inputs: Any) -> Any:
        """To be defined: the arrays of one sample → what the network makes of them.

        It is called in several threads at a time, with a sample each. What it sets on a model, gets out of it, or
        assigns to attributes of `self` belongs to that call alone; inputs and attributes that were set before, in
        `__init__` for instance, are there in every call. So it may do as it likes with its models, in the thread that
        it is called in, but must not change objects that calls share, such as a list in an attribute.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a method forward, got none")

    def _forward(self, sample: object) -> Any:
        """`forward` of a sample: of the items of a list or tuple, or of the one thing that it is."""
        arguments = tuple(sample) if isinstance(sample, (list, tuple)) else (sample,)
        return copy(self).forward(*arguments)


def _samples(source: object, what: str) -> Iterable[Any]:
    """The samples of a generator or list; an array is one sample. Raises ValueError for anything else."""
    if isinstance(source, np.ndarray):
        return [source]
    if isinstance(source, (str, bytes)) or not isinstance(source, Iterable):
        raise ValueError(f"{what}: expected an array, or a generator or list of samples, got {type(source).__name__}")
    return source


def _map(work: Callable[[Any], Result], samples: Iterable[Any], num_process: object) -> Iterator[Result]:
    return map_threads(work, samples, min(positive(num_process, "num_process"), processors()))


class SimSimulator(Network):
    """Runs a network of several models that a subclass defines."""

    def __call__(self, inputs: Any, num_process: int = NUM_PROCESS) -> Any:
        """Run `forward` on one array, for its result, or on every sample of a generator or list, for a list of results
        in the same order. A sample is an array, or a list or tuple of arrays, one for each argument of `forward`.

        At most `num_process` samples, and no more than there are processors, are worked on at a time; results do not
        depend on it. Raises what `forward` raises, of the first sample at fault.
        """

        def run(sample: Any) -> Any:
            with private_states():
                return self._forward(sample)

        results = list(_map(run, progress(_samples(inputs, "inputs"), "run"), num_process))
        return results[0] if isinstance(inputs, np.ndarray) else results


class SimCalibrator(Network):
    """Calibrates the models of a network: the `calibrator` objects among its attributes, in the order in which they
    were set.
    """

    def convert(
        self,
        img_gen: Any,
        fix_model: Sequence[AnyPath],
        num_process: int = NUM_PROCESS,
        quant_level: str = "L5",
        quant_param: AnyPath | Parameters | Sequence[AnyPath | Parameters | None] | None = None,
    ) -> None:
        """Run `forward` on every sample and calibrate each model on what it was fed, however often it was invoked.

        Args:
            img_gen: generator or list of samples: an array each, or a list or tuple with one for each argument of
                `forward`.
            fix_model: the fixed .sim files to write, one a model; all of them or, after an error, none.
            num_process: at most so many samples at a time; results do not depend on it.
            quant_level: L1 to L5.
            quant_param: quantisation parameters to follow: a list of entries, or a file of them, that says something of
                any of the models, or a list with a list, a file or None for each model.

        Raises:
            ValueError: for all that does not fit together, for a model that `forward` does not invoke, and for files
                that cannot be written. What `forward` and the generator raise.
        """
        models = self._models()
        targets = _targets(fix_model, models)
        level, processes = one_of(quant_level, "quant_level", LEVELS), positive(num_process, "num_process")
        options = CalibrationOptions(level, processes=processes)
        parameters = _parameters(quant_param, models)
        with tempfile.TemporaryDirectory(prefix="sgs_feeds_") as folder, value_errors():
            fed = self._fed(models, _samples(img_gen, "img_gen"), num_process, Path(folder))
            fixed = []
            for (name, model), samples, own in zip(models.items(), fed, parameters, strict=True):
                feeds = RecordedFeeds(tuple(model.float_graph.inputs))
                chosen = replace(options, quant_parameters=own)
                wrap = _titled(name if len(models) > 1 else "")
                fixed.append(calibrate_on(model.float_graph, model.config, feeds, samples, chosen, wrap=wrap).graph)
        with value_errors(), atomic_outputs(*targets) as files:
            for graph, file in zip(fixed, files, strict=True):
                write_sim(graph, file, stage="fixed")

    def _models(self) -> dict[str, Calibrator]:
        """Attribute → model. Raises ValueError where there are none."""
        found: dict[Calibrator, str] = {}
        for name, value in vars(self).items():
            if isinstance(value, Calibrator):
                found.setdefault(value, name)
        if not found:
            raise ValueError(f"{type(self).__name__}: expected calibrator objects as attributes, got none")
        return {name: model for model, name in found.items()}

    def _fed(
        self, models: dict[str, Calibrator], samples: Iterable[Any], num_process: int, folder: Path
    ) -> list[list[Sample]]:
        """What every model was fed, in files below `folder`. Raises ValueError for no samples, or an idle model."""
        recorder = _Recorder(self, list(models.values()), folder)
        fed: list[list[Sample]] = [[] for _ in models]
        count = 0
        for runs in _map(recorder, progress(enumerate(samples), "run"), num_process):
            count += 1
            for every, own in zip(fed, runs, strict=True):
                every += own
        if not count:
            raise ValueError("img_gen: expected at least one sample, got none")
        idle = [f"{name} ({model.path})" for (name, model), own in zip(models.items(), fed, strict=True) if not own]
        if idle:
            raise ValueError(f"expected forward to invoke every model, got no invoke of {', '.join(idle)}")
        return fed


@dataclass(frozen=True)
class _Recorder:
    """Runs `forward` of a network on a numbered sample and writes down what its models are fed."""

    network: SimCalibrator
    models: list[Calibrator]
    folder: Path

    def __call__(self, numbered: tuple[int, Any]) -> list[list[Sample]]:
        """Per model and invoke, the files with the arrays of its inputs."""
        number, sample = numbered
        runs: list[list[Sample]] = [[] for _ in self.models]

        def record(model: Calibrator, feeds: dict[str, Array]) -> None:
            if model not in self.models:
                raise ValueError(f"{model.path}: expected forward to invoke attributes, got another calibrator")
            position = self.models.index(model)
            title = f"sample {number}, invoke {len(runs[position])}"
            files = tuple(self.folder / f"{title}.{position}.{k}.npy" for k in range(len(feeds)))
            for file, name in zip(files, model.input_names, strict=True):
                np.save(file, feeds[name], allow_pickle=False)
            runs[position].append(files)

        with private_states(record):
            self.network._forward(sample)
        return runs


def _titled(name: str) -> Wrap:
    return lambda items, title: progress(items, f"{name} {title}".strip())


def _targets(fix_model: object, models: dict[str, Calibrator]) -> list[Path]:
    """The files to write. Raises ValueError unless there is one that can be written for each model."""
    if not isinstance(fix_model, (list, tuple)):
        raise ValueError(f"fix_model: expected a list of paths, got {fix_model!r}")
    if len(fix_model) != len(models):
        expected = f"{len(models)} paths, for {', '.join(models)}" if len(models) > 1 else "1 path"
        raise ValueError(f"fix_model: expected {expected}, got {len(fix_model)}")
    targets = [path_of(path, "fix_model") for path in fix_model]
    for target in targets:
        if target.suffix != ".sim" and not target.is_dir():
            raise ValueError(f"fix_model: expected a file that ends in .sim, got {str(target)!r}")
    with value_errors():
        check_outputs(targets, [file for model in models.values() for file in (model.path, model.config.path)])
    return targets


def _parameters(given: object, models: dict[str, Calibrator]) -> list[tuple[QuantParameter, ...]]:
    """The parameters of each model. Raises ValueError for entries that cannot be used."""
    if given is None:
        return [() for _ in models]
    graphs = [model.float_graph for model in models.values()]
    with value_errors():
        if isinstance(given, (str, os.PathLike)) or _holds_entries(given):
            found = shared_out(_entries(given), graphs)
        elif isinstance(given, (list, tuple)) and len(given) == len(models):
            found = [_entries(item) if item else () for item in given]
        else:
            what = f"{len(given)} items" if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(f"quant_param: expected a list of entries, a file, or {len(models)} of them, got {what}")
        for parameters, graph in zip(found, graphs, strict=True):
            check_parameters(parameters, graph)
    return found


def _holds_entries(given: object) -> bool:
    return isinstance(given, (list, tuple)) and any(isinstance(item, dict) for item in given)


def _entries(given: object) -> tuple[QuantParameter, ...]:
    return read_parameters(Path(given)) if isinstance(given, (str, os.PathLike)) else parse_parameters(given)
