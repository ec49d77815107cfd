"""Statistics as files: what they are of, what they hold, and a run's unfinished ones.

A file is a .npz (a zip of .npy arrays, read without pickle) of one array `header`, the bytes of a JSON object, and
arrays of numbers:

- statistics: header {"format", "version", "network", "preprocessing", "tensors": {name: channels}, "counted": [names]};
  `samples` uint64 [N], a hash of each sample's files; `low` and `high` float32, the channels of all tensors in turn;
  `counts` int64 [counted, BINS];
- unfinished ones: header {"format", "version", "network", "preprocessing", "passes": {pass: [names]}}; of each pass
  `<pass>`, the tally so far, and `<pass>_samples` uint64, the samples in it.

A file fits where network and preprocessing are the same and the samples at hand are among its samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sgs.config.input_config import InputConfig
from sgs.config.nearest import listing
from sgs.data.files import atomic_output
from sgs.data.images import Sample
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError
from sgs.ir import Graph
from sgs.numeric.quantise import Array
from sgs.quant.bins import BINS
from sgs.quant.propagate import channels, observed_tensors
from sgs.quant.statistics import Statistics, TensorStatistics

_log = logging.getLogger(__name__)
STAGE = "statistics"
STATISTICS, PARTIAL = "sgs statistics", "sgs unfinished statistics"  # formats
VERSION = 1
INTERVAL = 5.0  # seconds between two writes of a checkpoint
ELSEWHERE = "name a file that does not exist, to have it written"
AFRESH = "run without --resume"
_DAMAGED = (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError)


# -- what statistics are of --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Origin:
    """Hashes of a float network, of how its inputs are made, and of each sample (files' contents)."""

    network: str
    preprocessing: str
    samples: tuple[int, ...]

    @staticmethod
    def of(
        graph: Graph, config: InputConfig, preprocessors: Sequence[Preprocessor], samples: Iterable[Sample]
    ) -> Origin:
        hashes = tuple(sample_hash(sample) for sample in samples)
        return Origin(network_hash(graph), preprocessing_hash(config, preprocessors), hashes)

    def check(self, file: Path, header: Mapping[str, Any]) -> None:
        """Raise UserError where a file is of another network or preprocessing."""
        for key, what in (
            ("network", "another network"),
            ("preprocessing", "another preprocess script, or other inputs"),
        ):
            if header[key] != getattr(self, key):
                remedy = _remedy(header.get("format", ""))
                raise UserError(f"holds statistics of {what}", stage=STAGE, file=file, remedy=remedy)


def digest(parts: Iterable[bytes], size: int = 16) -> str:
    """A hash of parts, each with its length, so that no two lists of parts look the same."""
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def network_hash(graph: Graph) -> str:
    """Hash of a float network: tensors, nodes, inputs, outputs and constants; not its name, nor nodes' names and
    metadata.
    """
    nodes = [[node.op, node.inputs, node.outputs, _plain(node.attrs)] for node in graph.nodes]
    tensors = {name: [tensor.dtype.name, tensor.shape] for name, tensor in graph.tensors.items()}
    topology = json.dumps([graph.inputs, graph.outputs, nodes, tensors], sort_keys=True)
    constants = sorted(name for name, tensor in graph.tensors.items() if tensor.is_constant)
    return digest([topology.encode(), *(np.asarray(graph[name].data).tobytes() for name in constants)])


def _plain(value: Any) -> Any:
    """An attribute as JSON, and as it comes back from a .sim: tuples are lists, real numbers binary32."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    return float(np.float32(value)) if isinstance(value, float) else value


def preprocessing_hash(config: InputConfig, preprocessors: Sequence[Preprocessor]) -> str:
    """Hash of which script makes which input, and of the scripts. Mean, std and formats of the ini have no say in what
    the float network reads: scripts normalise."""
    parts = []
    for spec, script in zip(config.inputs, preprocessors, strict=True):
        parts += [spec.name.encode(), script.path.read_bytes()]
    return digest(parts)


def sample_hash(sample: Sample) -> int:
    """Hash of the contents of a sample's files, 64 bits; where they lie and what they are called has no say."""
    try:
        return int(digest((file.read_bytes() for file in sample), 8), 16)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", stage=STAGE, file=error.filename) from error


def _remedy(kind: str) -> str:
    """What to do about a file of a kind that cannot be used."""
    return AFRESH if kind == PARTIAL else ELSEWHERE


# -- files of arrays ---------------------------------------------------------------------------------------------------
def _write(path: Path, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, header=text, **arrays)


def _read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays) of a file of one kind. Raises UserError for any other file, and for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive.items())
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != kind:
            raise ValueError("it is of another kind")
        version = header["version"]
        _ = header["network"], header["preprocessing"]
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot be read: {error.strerror}", stage=STAGE, file=path) from error
    except _DAMAGED as error:
        reason = f"is damaged, or holds no {kind.removeprefix('sgs ')}"
        raise UserError(reason, stage=STAGE, file=path, remedy=_remedy(kind)) from error
    if version != VERSION:
        reason = f"is of version {version}, this toolchain reads version {VERSION}"
        raise UserError(reason, stage=STAGE, file=path, remedy=_remedy(kind))
    return header, arrays


def save_statistics(path: Path, statistics: Statistics, origin: Origin) -> None:
    """Write statistics with what they are of. Equal statistics of the same samples, in any order, give equal bytes."""
    tensors = statistics.tensors
    counted = [name for name, tensor in tensors.items() if tensor.counts is not None]
    header = {
        "format": STATISTICS,
        "version": VERSION,
        "network": origin.network,
        "preprocessing": origin.preprocessing,
        "tensors": {name: tensor.low.size for name, tensor in tensors.items()},
        "counted": counted,
    }
    counts = [tensor.counts for tensor in tensors.values() if tensor.counts is not None]
    arrays: dict[str, Array] = {
        "samples": np.array(sorted(origin.samples), np.uint64),
        "low": np.concatenate([tensor.low for tensor in tensors.values()]).astype(np.float32),
        "high": np.concatenate([tensor.high for tensor in tensors.values()]).astype(np.float32),
        "counts": np.array(counts, np.int64).reshape(-1, BINS),
    }
    _write(path, header, arrays)


def load_statistics(path: Path) -> tuple[Statistics, Origin]:
    """(statistics, what they are of). Raises UserError for a file that is damaged or not of this format."""
    header, arrays = _read(path, STATISTICS)
    try:
        widths, counted = header["tensors"], header["counted"]
        low, high, counts, samples = (arrays[key] for key in ("low", "high", "counts", "samples"))
        total = sum(widths.values())
        _expect(samples, np.uint64, (samples.size,))
        _expect(low, np.float32, (total,))
        _expect(high, np.float32, (total,))
        _expect(counts, np.int64, (len(counted), BINS))
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all() and (counts >= 0).all()):
            raise ValueError("values that statistics cannot have")
        ends = np.cumsum([0, *widths.values()])
        tensors = {
            name: TensorStatistics(low[start:end], high[start:end])
            for name, start, end in zip(widths, ends[:-1], ends[1:], strict=True)
        }
        for name, row in zip(counted, counts, strict=True):
            tensors[name] = TensorStatistics(tensors[name].low, tensors[name].high, row)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"is damaged: {error}", stage=STAGE, file=path, remedy=ELSEWHERE) from error
    origin = Origin(header["network"], header["preprocessing"], tuple(int(sample) for sample in samples))
    return Statistics(samples.size, tensors), origin


def _expect(array: Array, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{array.dtype} {list(array.shape)} where {np.dtype(dtype)} {list(shape)} is needed")


def fitting_statistics(
    path: Path, wanted: Origin, prepared: Graph, counted: Sequence[str]
) -> tuple[Statistics, Origin]:
    """Statistics of a file, and what they are of: this network and preprocessing, these samples and perhaps more.

    Raises UserError for a file of anything else, and for one that lacks activations of the prepared graph or, of those
    in `counted`, histograms.
    """
    statistics, origin = load_statistics(path)
    wanted.check(path, {"network": origin.network, "preprocessing": origin.preprocessing})
    others = Counter(wanted.samples) - Counter(origin.samples)
    if others:
        reason = f"holds statistics of {statistics.samples} samples, which lack {others.total()} of those given"
        raise UserError(reason, stage=STAGE, file=path, remedy=ELSEWHERE)
    held = statistics.tensors
    missing = [
        name
        for name in observed_tensors(prepared)
        if name not in held
        or held[name].low.size != channels(prepared[name])
        or (name in counted and held[name].counts is None)
    ]
    if missing:
        reason = f"lacks the statistics of {listing(missing, 5)}"
        raise UserError(reason, stage=STAGE, file=path, remedy=ELSEWHERE)
    more = statistics.samples - len(wanted.samples)
    if more:
        _log.warning("%s: statistics of %d samples, %d more than given", path, statistics.samples, more)
    return statistics, origin


# -- a run under way ---------------------------------------------------------------------------------------------------
@dataclass
class _Share:
    """How far a pass has come: what the rows of the tally are of, the tally, and which samples are in it, bool [N]."""

    labels: list[str]
    tally: Array
    done: Array


class Checkpoint:
    """Keeps the tallies of a run in a file, so that an interrupted run can be resumed. The file is written every
    `interval` seconds and when the run is interrupted, but not before that time has passed: a run that fails at once
    leaves nothing behind. `origin` is called when the file is first read or written, as it reads all samples.

    Raises UserError for a file to resume from that is damaged, or of another network, preprocessing or other samples.
    """

    def __init__(
        self, path: Path, origin: Callable[[], Origin], *, resume: bool = False, interval: float | None = None
    ) -> None:
        self.path, self._make_origin = path, origin
        self._interval = INTERVAL if interval is None else interval
        self._shares: dict[str, _Share] = {}
        self._begun = self._written = time.monotonic()
        if resume and path.exists():
            self._load()
        elif resume:
            _log.warning("--resume: there is no %s; the run starts at the beginning", path)

    @cached_property
    def _origin(self) -> Origin:
        return self._make_origin()

    def _load(self) -> None:
        header, arrays = _read(self.path, PARTIAL)
        self._origin.check(self.path, header)
        try:
            for key, labels in header["passes"].items():
                samples = arrays[f"{key}_samples"]
                _expect(samples, np.uint64, (samples.size,))
                self._shares[key] = _Share(list(labels), arrays[key], self._among(samples))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"is damaged: {error}", stage=STAGE, file=self.path, remedy=AFRESH) from error

    def _among(self, samples: Array) -> Array:
        """Which of the run's samples are meant."""
        left = Counter(samples.tolist())
        done = np.zeros(len(self._origin.samples), bool)
        for index, sample in enumerate(self._origin.samples):
            done[index] = left[sample] > 0
            left[sample] -= 1
        if any(count > 0 for count in left.values()):
            reason = "holds statistics of samples that are not among those given"
            raise UserError(reason, stage=STAGE, file=self.path, remedy=AFRESH)
        return done

    def started(self, key: str, labels: Sequence[str], nothing: Array, count: int) -> tuple[Array, Array]:
        """(tally, which of `count` samples are in it) that a pass can go on from; (`nothing`, none of them) where no
        tally under these labels is known, which say what its values are of."""
        share = self._shares.get(key)
        if share is None or share.labels != list(labels):
            return nothing, np.zeros(count, bool)
        if (share.tally.shape, share.tally.dtype) != (nothing.shape, nothing.dtype):
            raise UserError("is damaged", stage=STAGE, file=self.path, remedy=AFRESH)
        return share.tally, share.done.copy()

    def update(self, key: str, labels: Sequence[str], tally: Array, done: Array) -> None:
        """Note how far a pass has come; write it down when it is time."""
        self._shares[key] = _Share(list(labels), tally, done)
        if time.monotonic() - self._written >= self._interval:
            self._write()

    def keep(self) -> bool:
        """Write down how far the run has come, unless it has hardly begun; whether that was done."""
        begun = bool(self._shares) and time.monotonic() - self._begun >= self._interval
        if begun:
            self._write()
        return begun

    def _write(self) -> None:
        header = {
            "format": PARTIAL,
            "version": VERSION,
            "network": self._origin.network,
            "preprocessing": self._origin.preprocessing,
            "passes": {key: share.labels for key, share in self._shares.items()},
        }
        samples = np.array(self._origin.samples, np.uint64)
        arrays = {key: share.tally for key, share in self._shares.items()}
        arrays |= {f"{key}_samples": samples[share.done] for key, share in self._shares.items()}
        _write(self.path, header, arrays)
        self._written = time.monotonic()
