"""One way to run any model file: float .sim, fixed .sim and offline .img. The kind is read from the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Literal, TypeVar

import numpy as np

from sgs.config.formats import InputSpec, OutputSpec
from sgs.config.input_config import ConvSpec, InputConfig, parse_input_config
from sgs.data.feed import beyond_table, check_indices, fixed_inputs, float_inputs
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.data.shards import map_threads
from sgs.engine import FixedEngine, FloatEngine
from sgs.errors import UserError
from sgs.img import Image, IoTensor, OfflineEngine, read_image
from sgs.img.frames import frames_of, split, stack
from sgs.ir import Graph
from sgs.numeric.quantise import Array, QuantParams, dequantise, quantise
from sgs.numeric.types import DType
from sgs.ops.gather import indexed_entries
from sgs.sim import SimFile, expect_stage, read_sim

STAGE = "simulate"
Kind = Literal["Float", "Fixed", "Offline"]
KINDS: tuple[Kind, ...] = ("Float", "Fixed", "Offline")
_KIND_OF_STAGE: dict[str, Kind] = {"float": "Float", "fixed": "Fixed", "debug": "Float"}
_IMAGE_MAGIC = b"SGSIMG"

Arrays = dict[str, Array]
Engine = FloatEngine | FixedEngine | OfflineEngine
Simulated = tuple[Sample, Arrays, Arrays]  # with what its model was fed and gave, by name
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Port:
    """An input or output as the caller sees it: `shape` is that of one frame, in `layout`.

    `quant` is set where the caller hands over or receives codes; `spec` says what an input is fed, None for outputs.
    `picture_shape` is that of the pixels in what fixed and offline models are fed, () where there are none: scripts
    return pictures of this shape, else of `shape`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    layout: str
    quant: QuantParams | None = None
    spec: InputSpec | None = None
    entries: int = 0  # that its numbers pick from, of an input that does
    picture_shape: tuple[int, ...] = ()

    def real(self, values: Array) -> Array:
        """What an array of this port stands for: codes become float32, anything else stays."""
        return values if self.quant is None else dequantise(values, self.quant)


@dataclass(frozen=True)
class Batches:
    """How many frames one run takes: 1 up to the largest (n_buf), or one of the listed numbers (one_buf)."""

    mode: str = "n_buf"
    sizes: tuple[int, ...] = (1,)

    def allows(self, frames: int) -> bool:
        return 1 <= frames <= self.sizes[0] if self.mode == "n_buf" else frames in self.sizes

    @property
    def smallest(self) -> int:
        return 1 if self.mode == "n_buf" else min(self.sizes)

    def __str__(self) -> str:
        if self.mode == "n_buf":
            return "1" if self.sizes == (1,) else f"1 to {self.sizes[0]}"
        return " or ".join(map(str, self.sizes))


class Simulator:
    """A model ready to run. One of a file pickles as its path, and is opened again where it is unpickled.

    Args:
        model: path of a .sim (debug, float or fixed) or an .img, or what a .sim would hold.
        threads: of one run, 0 for one per core; may be changed until the first run.

    Raises:
        UserError: the file is missing, damaged, or not a model of this toolchain.
    """

    def __init__(self, model: str | os.PathLike[str] | SimFile, *, threads: int = 0) -> None:
        self._held = model if isinstance(model, SimFile) else None
        self.path = Path(model.path if isinstance(model, SimFile) else model)
        self.threads = threads
        self.graph: Graph | None = None  # of a .sim
        self.stage = ""  # that a .sim says
        self.image: Image | None = None  # of an .img
        self.batches = Batches()
        self._building = Lock()
        self._built: Engine | None = None
        if self._held is None and is_image(self.path):
            self._open_image(read_image(self.path))
        else:
            self._open_sim(self._held or read_sim(self.path))

    def __reduce__(self) -> tuple[type[Simulator], tuple[Path | SimFile]]:
        return Simulator, (self._held or self.path.absolute(),)

    def _open_image(self, image: Image) -> None:
        self.kind: Kind = "Offline"
        self.image = image
        self.batches = Batches(image.batch_mode.name.lower(), image.batches)
        self.inputs = tuple(_image_port(tensor, _image_spec(tensor)) for tensor in image.inputs)
        self.outputs = tuple(_image_port(tensor, None) for tensor in image.outputs)
        specs = tuple(port.spec for port in self.inputs if port.spec is not None)
        outputs = tuple(
            OutputSpec(t.name, t.dtype is DType.FLOAT32, t.layout or "NHWC", t.format) for t in image.outputs
        )
        self.config = InputConfig(specs, outputs, ConvSpec(), self.path, "")

    def _open_sim(self, sim: SimFile) -> None:
        graph = expect_stage(sim, tuple(_KIND_OF_STAGE), "the simulator")
        self.stage, self.kind = sim.stage, _KIND_OF_STAGE[sim.stage]
        self.graph = graph
        text = graph.metadata.get("config")
        if not isinstance(text, str):
            raise UserError(
                "holds no configuration of its inputs", stage=STAGE, file=self.path, remedy="convert it again"
            )
        self.config = parse_input_config(text, self.path)
        specs = {spec.name: spec for spec in self.config.inputs}
        layouts = {name: spec.layout for name, spec in specs.items()}
        layouts |= {output.name: output.layout for output in self.config.outputs}
        unknown = [name for name in (*graph.inputs, *graph.outputs) if name not in layouts]
        if unknown:
            raise UserError("its configuration does not describe this", stage=STAGE, file=self.path, node=unknown[0])
        ports = {
            name: _graph_port(graph, name, layouts[name], specs.get(name)) for name in layouts if name in graph.tensors
        }
        entries, pictures = indexed_entries(graph), _picture_shapes(graph)
        self.inputs = tuple(
            replace(port, entries=entries.get(port.name, 0), picture_shape=pictures.get(port.name, ()))
            for port in (ports[name] for name in graph.inputs)
        )
        self.outputs = tuple(ports[name] for name in graph.outputs)

    # -- running -------------------------------------------------------------------------------------------------------
    @property
    def _engine(self) -> Engine:
        """Built by the first who asks, whichever thread that is; the others wait for it."""
        with self._building:
            if self._built is None:
                self._built = self._build()
            return self._built

    def _build(self) -> Engine:
        if self.image is not None:
            return OfflineEngine(self.image, threads=self.threads)
        assert self.graph is not None
        engine = FloatEngine if self.kind == "Float" else FixedEngine
        return engine(self.graph, threads=self.threads)

    def close(self) -> None:
        """Let go of what running takes; a later run takes it again."""
        with self._building:
            self._built = None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Arrays by input name → arrays by output name; frames may be stacked on the first axis as `batches` allows.

        Raises ValueError, with what was expected and what was got, for feeds that do not fit.
        """
        names = [port.name for port in self.inputs]
        if set(feeds) != set(names):
            raise ValueError(f"expected inputs {names}, got {list(feeds)}")
        checked = {port.name: self.checked(port, feeds[port.name]) for port in self.inputs}
        return self._engine.run(checked)

    def checked(self, port: Port, values: object) -> Array:
        """C-contiguous values for an input. Raises ValueError for another shape, type or number of frames."""
        if not isinstance(values, np.ndarray):
            raise ValueError(f"input '{port.name}': expected a numpy.ndarray, got {type(values).__name__}")
        wanted, got = port.dtype.numpy, values.dtype
        if got != wanted:
            raise ValueError(f"input '{port.name}': expected dtype {wanted}, got {got}")
        frames = frames_of(port.shape, values.shape)
        if not frames or not self.batches.allows(frames):
            raise ValueError(f"input '{port.name}': expected {self._stackable(port)}, got {list(values.shape)}")
        if port.entries and (reason := beyond_table(values, port.entries)):
            raise ValueError(f"input '{port.name}': {reason}")
        return np.asarray(values, order="C")  # np.ascontiguousarray makes a vector of a scalar

    def _stackable(self, port: Port) -> str:
        """What shapes an input takes, in words."""
        shape = f"shape {list(port.shape)}"
        if not self.batches.allows(1):
            return f"{self.batches} frames of {shape} stacked"
        return shape if str(self.batches) == "1" else f"{shape}, or {self.batches} frames stacked"

    # -- feeding from files --------------------------------------------------------------------------------------------
    def feeds(self, preprocessors: Sequence[Preprocessor], sample: Sample) -> dict[str, Array]:
        """What this model reads for one sample: scripts are called with norm=True for float models only."""
        prepare = float_inputs if self.kind == "Float" else fixed_inputs
        returned = {port.name: replace(port, shape=port.picture_shape or port.shape) for port in self.inputs}
        arrays = prepare(self.config, preprocessors, sample, returned)
        return {port.name: _as_fed(port, arrays[port.name], self.path) for port in self.inputs}

    def map(
        self,
        preprocessors: Sequence[Preprocessor],
        samples: Iterable[Sample],
        finish: Callable[[Sample, Arrays, Arrays], Result],
    ) -> Iterator[Result]:
        """`finish(sample, feeds, outputs)` of every sample, in order; the last two map names to arrays.

        Float and fixed models work on several samples at a time, each in a thread, in which `finish` is called too.
        Only a few samples are loaded ahead. Where an offline model takes several frames only, the last group is filled
        up with repetitions, whose results are dropped.
        """
        if isinstance(self._engine, OfflineEngine):
            ahead = iter(samples)
            while group := list(islice(ahead, self.batches.smallest)):
                loaded = [(sample, self.feeds(preprocessors, sample)) for sample in group]
                yield from (finish(*simulated) for simulated in self._run_group(loaded))
            return

        def work(sample: Sample) -> Result:
            feeds = self.feeds(preprocessors, sample)
            return finish(sample, feeds, self.run(feeds))

        yield from map_threads(work, samples, self._engine.lanes())

    def _run_group(self, group: list[tuple[Sample, Arrays]]) -> Iterator[Simulated]:
        size = self.batches.smallest
        if size == 1:
            (sample, feeds), *_ = group
            yield sample, feeds, self.run(feeds)
            return
        filled = [feeds for _, feeds in group] + [group[-1][1]] * (size - len(group))
        stacked = {port.name: stack([feeds[port.name] for feeds in filled]) for port in self.inputs}
        results = self.run(stacked)
        parts = {port.name: split(results[port.name], port.shape, size) for port in self.outputs}
        for index, (sample, feeds) in enumerate(group):
            yield sample, feeds, {name: frames[index] for name, frames in parts.items()}


def is_image(path: Path, *, stage: str = STAGE) -> bool:
    """Whether the file begins as an .img does; a damaged one counts when it is called .img. Raises UserError, naming
    the `stage`, for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_IMAGE_MAGIC))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or error}", stage=stage, file=path) from error
    return head == _IMAGE_MAGIC or path.suffix.lower() == ".img"


def _image_spec(tensor: IoTensor) -> InputSpec:
    quantize = tensor.dtype is not DType.INT16
    mean, std = tensor.mean, tensor.std
    aligned = tensor.width_alignment, tensor.height_alignment
    return InputSpec(tensor.name, tensor.training_format, tensor.format, quantize, mean, std, *aligned, tensor.layout)


def _image_port(tensor: IoTensor, spec: InputSpec | None) -> Port:
    codes = not tensor.dtype.is_float and not (spec is not None and spec.is_picture)
    quant, layout = tensor.quant if codes else None, tensor.layout or "NHWC"
    return Port(tensor.name, tensor.shape, tensor.dtype, layout, quant, spec, tensor.entries, tensor.picture_shape)


def _picture_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Of the pictures that a fixed graph is fed."""
    told = graph.metadata.get("inputs") or ()
    return {entry["name"]: tuple(entry["picture_shape"]) for entry in told if "picture_shape" in entry}


def _graph_port(graph: Graph, name: str, layout: str, spec: InputSpec | None) -> Port:
    tensor = graph[name]
    return Port(name, tensor.shape, tensor.dtype, layout, None if tensor.dtype.is_float else tensor.quant, spec)


def _as_fed(port: Port, values: Array, path: Path) -> Array:
    """The array in the port's type: real numbers become codes where the model reads codes.

    Raises UserError where the type cannot hold the values as they are.
    """
    if values.dtype.kind == "f" and port.quant is not None:
        return quantise(values, port.quant, port.dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and what is too large are refused below
        fed = values.astype(port.dtype.numpy, copy=False)
    if fed is not values and not np.array_equal(fed, values, equal_nan=True):
        reason = f"expected values that {fed.dtype} holds, got {values.min():g}..{values.max():g} ({values.dtype})"
        raise UserError(reason, stage=STAGE, file=path, node=f"input '{port.name}'")
    if port.entries:
        check_indices(port.name, fed, port.entries, stage=STAGE, file=path)
    return fed
