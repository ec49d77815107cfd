"""A first input_config.ini for a network that has none: what the structure tells, the rest marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sgs.config.formats import F32, S16, colons, integer_format
from sgs.config.ini import needs_quotes
from sgs.config.nearest import listing

LINE = 100  # characters, from which a list goes on in the next line


@dataclass(frozen=True)
class Terminal:
    """An input or output of a network: `shape` is in `layout`, which says something of rank 4 only. `entries`: of the
    table that an integer input picks from, 0 for none; `straight`: it goes into such tables only."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = "NHWC"
    entries: int = 0
    straight: bool = False

    @property
    def is_float(self) -> bool:
        return "float" in self.dtype

    @property
    def picture(self) -> str | None:
        """RGB or GRAY for what may be a picture: real numbers of rank 4, 3 or 1 channels, and more than a line."""
        if not self.is_float or len(self.shape) != 4:
            return None
        channels, *extents = (self.shape[axis] for axis in ((1, 2, 3) if self.layout == "NCHW" else (3, 1, 2)))
        return {1: "GRAY", 3: "RGB"}.get(channels) if min(extents) > 1 else None

    @property
    def raw(self) -> str:
        """The format of data that are no picture."""
        if self.is_float:
            return F32
        return integer_format(self.entries, straight=self.straight) or S16


@dataclass(frozen=True)
class Measured:
    """What was seen of an input's preprocess script: mean and std in the order R, G, B, and the order of the channels
    that it returns, None where that could not be seen."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str | None = None


@dataclass(frozen=True)
class Draft:
    """What a drafted ini says. `measured` is by name of the input."""

    title: str
    inputs: Sequence[Terminal]
    outputs: Sequence[Terminal]
    measured: Mapping[str, Measured] = field(default_factory=dict)

    def in_order(self) -> list[Terminal]:
        """Inputs in the order of the ini: the network's, raw data last."""
        return sorted(self.inputs, key=lambda terminal: terminal.picture is None)

    def text(self) -> str:
        """The ini."""
        return "\n".join([f"# input_config.ini of {self.title}", "", *self._inputs(), "", *self._outputs(), ""])

    def _inputs(self) -> list[str]:
        terminals = self.in_order()
        formats = [self._format(terminal) for terminal in terminals]
        lines = ["[INPUT_CONFIG]", *_row("inputs", [quoted(terminal.name) for terminal in terminals])]
        lines += self._remarks(terminals)
        lines += _row("training_input_formats", formats) + _row("input_formats", formats)
        lines += _row("quantizations", ["TRUE"] * len(terminals))
        lines += _layouts("input_layouts", terminals)
        pictures = [terminal for terminal in terminals if terminal.picture]
        if pictures:
            told = [self.measured.get(terminal.name) for terminal in pictures]
            lines += self._normalisation_remarks(pictures)
            unknown = {"RGB": "0:0:0", "GRAY": "0"}
            means = [
                colons(one.mean) if one else unknown[t.picture or ""] for one, t in zip(told, pictures, strict=True)
            ]
            lines += _row("mean", means)
            lines += _row("std_value", [colons(one.std, merge=True) if one else "1" for one in told])
        return lines

    def _format(self, terminal: Terminal) -> str:
        measured = self.measured.get(terminal.name)
        if terminal.picture == "RGB" and measured and measured.order:
            return measured.order
        return terminal.picture or terminal.raw

    def _remarks(self, terminals: Sequence[Terminal]) -> list[str]:
        """What to look at before the formats are believed."""
        pictures = [terminal.name for terminal in terminals if terminal.picture]
        colour = [terminal.name for terminal in terminals if terminal.picture == "RGB"]
        guessed = [name for name in colour if not (name in self.measured and self.measured[name].order)]
        lines = []
        if pictures:
            lines.append(f"# CHECK: taken for pictures, as they have 3 channels or 1: {listing(pictures)}")
            lines.append(f"# (what is none: {F32}, behind the pictures, without mean and std_value)")
        if guessed:
            lines.append(f"# CHECK: RGB or BGR, as the preprocess script returns it: {listing(guessed)}")
        return lines + [
            f"# {terminal.name}: whole numbers ({terminal.dtype} in the network), fed as they are"
            for terminal in terminals
            if not terminal.is_float
        ]

    def _normalisation_remarks(self, pictures: Sequence[Terminal]) -> list[str]:
        guessed = [terminal.name for terminal in pictures if terminal.name not in self.measured]
        measured = [terminal.name for terminal in pictures if terminal.name in self.measured]
        lines = [f"# measured on the preprocess script, order R:G:B: {listing(measured)}"] if measured else []
        if guessed:
            lines.append(f"# CHECK: nothing is done to {listing(guessed)} here; (pixel - mean) / std_value, in")
            lines.append("# grey levels 0..255 and the order R:G:B, must be what the preprocess script does")
        return lines

    def _outputs(self) -> list[str]:
        return [
            "[OUTPUT_CONFIG]",
            *_row("outputs", [quoted(terminal.name) for terminal in self.outputs]),
            *_row("dequantizations", ["TRUE"] * len(self.outputs)),
            *_layouts("output_layouts", self.outputs),
        ]


def quoted(name: str) -> str:
    """A name as an ini holds it."""
    if not needs_quotes(name):
        return name
    return f"'{name}'" if '"' in name else f'"{name}"'


def _layouts(key: str, terminals: Sequence[Terminal]) -> list[str]:
    """The row of layouts, if it says anything."""
    named = any(terminal.layout == "NCHW" for terminal in terminals)
    return _row(key, [terminal.layout for terminal in terminals]) if named else []


def _row(key: str, items: Sequence[str]) -> list[str]:
    """`key=a,b;` in as few lines as are not too long."""
    lines = [f"{key}={items[0]}"]
    for item in items[1:]:
        if len(lines[-1]) + len(item) < LINE:
            lines[-1] += f",{item}"
        else:
            lines[-1] += ","
            lines.append(f"    {item}")
    return [*lines[:-1], lines[-1] + ";"]
