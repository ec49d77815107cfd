"""Preprocess scripts run on one sample: whether they do what the ini says, and what they do where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from sgs.cli.networks import Network
from sgs.config.draft import Measured, Terminal
from sgs.config.formats import InputSpec, colons
from sgs.config.input_config import InputConfig
from sgs.data.feed import float_inputs, plain_inputs
from sgs.data.images import Sample
from sgs.data.measure import channel_order, measured_normalisation
from sgs.data.preprocess import Preprocessor
from sgs.errors import UserError, gathered
from sgs.ir import Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.pipelines import check_normalisation
from sgs.report.columns import aligned


class Once(Preprocessor):
    """A script that is run once for each norm, on the one file that it is given."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.results: dict[bool, Array] = {}

    def __call__(self, image: str | Path, norm: bool) -> Array:
        if norm not in self.results:
            self.results[norm] = super().__call__(image, norm)
        return self.results[norm]


@dataclass(frozen=True)
class Seen:
    """What the script of an input returned for a file; `measured` of pictures, where mean and std explain it."""

    spec: InputSpec
    results: Mapping[bool, Array]
    measured: Measured | None = None

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Cells of a table."""
        return [
            (self.spec.name, f"norm={norm}", str(array.dtype), f"[{','.join(map(str, array.shape))}]", _span(array))
            for norm, array in self.results.items()
        ]

    @property
    def line(self) -> str:
        """Mean and std as an ini has them; "" for none."""
        if self.measured is None:
            return ""
        return f"mean={colons(self.measured.mean)}; std_value={colons(self.measured.std, merge=True)};"


def seen_text(seen: Sequence[Seen], sample: Sample) -> str:
    """What the scripts did, in lines."""
    lines = [f"preprocess scripts, on {', '.join(file.name for file in sample)}"]
    lines += [f"  {line}" for line in aligned([row for one in seen for row in one.rows])]
    measured = [(one.spec.name, one.line) for one in seen if one.line]
    if measured:
        lines += ["", "what they subtract and divide by, measured", *(f"  {line}" for line in aligned(measured))]
    return "\n".join(lines)


def look(
    config: InputConfig, network: Network, scripts: Sequence[Once], sample: Sample
) -> tuple[list[Seen], list[UserError]]:
    """What every script returned, and everything in which that is not what the ini says and the network needs."""
    terminals = {terminal.name: terminal for terminal in network.inputs}
    found: list[Seen] = []
    problems: list[UserError] = []
    for spec, script, file in zip(config.inputs, scripts, sample, strict=True):
        seen, faults = _look_at(config, spec, _fed(terminals[spec.name], network), script, file)
        found.append(seen)
        problems += faults
    return found, problems


def _look_at(
    config: InputConfig, spec: InputSpec, fed: Tensor, script: Once, file: Path
) -> tuple[Seen, list[UserError]]:
    """`look` for one input, whose pictures are looked at as the script returns them: in the training format."""
    arguments = replace(config, inputs=(spec,)), [script], (file,), {spec.name: fed}
    faults = gathered(lambda: float_inputs(*arguments), lambda: plain_inputs(*arguments))
    if faults:
        return Seen(spec, script.results), faults
    measured = _measured(spec.layout, script, file, spec.training_format) if spec.is_picture else None
    seen = Seen(spec, script.results, measured)
    faults = gathered(lambda: check_normalisation(*arguments))
    return seen, [_with_remedy(error, f"the script does {seen.line}") if seen.line else error for error in faults]


def _fed(terminal: Terminal, network: Network) -> Tensor:
    """What a script's array is compared with. Only the float graph tells what type the network itself reads."""
    dtype = DType.FLOAT32 if network.graph is None else network.graph[terminal.name].dtype
    return Tensor(terminal.name, terminal.shape, dtype)


def measure(
    terminals: Sequence[Terminal], scripts: Sequence[Once], sample: Sample
) -> tuple[list[Terminal], dict[str, Measured]]:
    """The inputs in the layouts that their scripts return, and what was measured of those that are pictures."""
    found: list[Terminal] = []
    measured: dict[str, Measured] = {}
    for terminal, script, file in zip(terminals, scripts, sample, strict=True):
        turned = _in_layout_of(terminal, script(file, True))
        found.append(turned)
        one = _measured(turned.layout, script, file) if turned.picture else None
        if one is not None:
            measured[terminal.name] = one
    return found, measured


def _in_layout_of(terminal: Terminal, array: Array) -> Terminal:
    """An input that is NHWC, in NCHW where its script returns that."""
    shape = terminal.shape
    if len(shape) != 4 or terminal.layout == "NCHW" or array.shape[-3:] == shape[1:]:
        return terminal
    planar = (shape[0], shape[3], shape[1], shape[2])
    return replace(terminal, shape=planar, layout="NCHW") if array.shape[-3:] == planar[1:] else terminal


def _measured(layout: str, script: Once, file: Path, training_format: str | None = None) -> Measured | None:
    """Mean and std in the order R, G, B, as the training format says or, without one, as the colours seem to be."""
    plain, floats = script(file, False), script(file, True)
    axis = -3 if layout == "NCHW" else -1
    if plain.shape != floats.shape or plain.ndim < 3:
        return None
    values = measured_normalisation(plain, floats, axis)
    if values is None:
        return None
    picture = cv2.imread(str(file), cv2.IMREAD_COLOR) if plain.shape[axis] == 3 else None
    order = None if picture is None else channel_order(picture, plain, axis)
    step = -1 if (training_format or order) == "BGR" else 1
    return Measured(values[0][::step], values[1][::step], order)


def _with_remedy(error: UserError, remedy: str) -> UserError:
    return UserError(error.reason, stage=error.stage, file=error.file, node=error.node, remedy=remedy)


def _span(array: Array) -> str:
    return f"{array.min():.5g} .. {array.max():.5g}" if array.size else "empty"
