"""What can be fed to a network and what it can return: formats, and one input or output of a network in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sgs.numeric.types import DType

Shape = Sequence[int]


@dataclass(frozen=True)
class InputFormat:
    """A row of the table of input formats.

    `trained_as`: the training formats that it can stand for. `channels`: of a picture of pixels, what its first
    channels are, as indices into mean and std. `alignment`: default of width and height; `aligned`: which of them may
    have another one.
    """

    trained_as: tuple[str, ...]
    channels: tuple[int, ...] = ()
    alignment: tuple[int, int] = (1, 1)
    aligned: tuple[bool, bool] = (False, False)
    layouts: tuple[str, ...] = ("NHWC", "NCHW")


COLOUR, PICTURE, NV12 = ("RGB", "BGR"), ("RGB", "BGR", "GRAY"), "YUV_NV12"
U8, S16, U16, F32 = "RAWDATA_U8_NHWC", "RAWDATA_S16_NHWC", "RAWDATA_U16_NHWC", "RAWDATA_F32_NHWC"
INPUT_FORMATS: dict[str, InputFormat] = {
    "RGB": InputFormat(COLOUR, (0, 1, 2)),
    "BGR": InputFormat(COLOUR, (2, 1, 0)),
    "RGBA": InputFormat(COLOUR, (0, 1, 2), aligned=(True, False), layouts=("NHWC",)),
    "BGRA": InputFormat(COLOUR, (2, 1, 0), aligned=(True, False), layouts=("NHWC",)),
    NV12: InputFormat(PICTURE, alignment=(2, 2), aligned=(True, True)),
    "GRAY": InputFormat(("GRAY",), (0,), aligned=(True, True)),
    U8: InputFormat((U8,)),
    S16: InputFormat((S16,)),
    U16: InputFormat((U16,)),
    F32: InputFormat((F32,)),
}
# Training format → its channels in order, as indices into mean and std, which are always in the order R, G, B.
CHANNELS: dict[str, tuple[int, ...]] = {name: INPUT_FORMATS[name].channels for name in PICTURE}
TRAINING_FORMATS = (*CHANNELS, *(name for name in INPUT_FORMATS if name.startswith("RAWDATA")))
RAW_TYPES: dict[str, DType] = {  # what a raw format carries
    F32: DType.FLOAT32,
    S16: DType.INT16,
    U16: DType.UINT16,
    U8: DType.UINT8,
}
# Raw formats of integers → entries of the largest table that their numbers pick from.
ENTRIES = {U8: 1 << 8, S16: 1 << 15, U16: (1 << 16) - 1}
OUTPUT_FORMATS = (F32, S16, U8)
LAYOUTS = ("NHWC", "NCHW")
CONV_FORMATS = ("ALL_UINT8", "ALL_INT16", "CONV2D_INT16", "DEPTHWISE_INT16")


def colons(values: Sequence[float], *, merge: bool = False) -> str:
    """A value for each channel as an ini has them, in the digits of binary32; with `merge` one for all where they are
    equal."""
    texts = [f"{value:.8g}" for value in values]
    return texts[0] if merge and len(set(texts)) == 1 else ":".join(texts)


def integer_format(entries: int, *, straight: bool) -> str | None:
    """The raw format for integers that pick from a table of so many `entries` (0: that do not pick), `straight` if they
    do nothing else; None where none reaches so far."""
    names = (S16, U16) if straight else (S16,)
    return next((name for name in names if entries <= ENTRIES[name]), None)


@dataclass(frozen=True)
class InputSpec:
    """One input. `mean` and `std` are in the order R, G, B (GRAY: one value, RAWDATA: none), in units of 0..255."""

    name: str
    training_format: str
    input_format: str
    quantize: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    width_alignment: int = 1
    height_alignment: int = 1
    layout: str = "NHWC"

    @property
    def is_picture(self) -> bool:
        return self.training_format in CHANNELS

    @property
    def channels(self) -> int:
        """Channels of the model's input; 0 for RAWDATA, where any number is right."""
        return len(CHANNELS.get(self.training_format, ()))

    @property
    def channel_axis(self) -> int:
        """The axis of a rank-4 array that holds the channels, in this input's layout."""
        return 1 if self.layout == "NCHW" else 3

    @property
    def fed_type(self) -> DType:
        """The type of what fixed and offline models are fed."""
        if self.is_picture:
            return DType.UINT8
        carried = RAW_TYPES[self.input_format]
        return DType.INT16 if carried is DType.FLOAT32 and not self.quantize else carried

    def in_order(self, values: Sequence[float], picture_format: str) -> tuple[float, ...]:
        """`mean` or `std` in the channel order of RGB, BGR or GRAY."""
        return tuple(values[index] for index in CHANNELS[picture_format])

    def fed_shape(self, shape: Shape) -> tuple[int, ...]:
        """The shape of what fixed and offline models are fed, for an input of `shape` in this input's layout.

        Raises ValueError for a row of RGBA pixels that the alignment would end within a pixel.
        """
        if not any(INPUT_FORMATS[self.input_format].aligned):
            return tuple(shape)
        planar = self.layout == "NCHW"
        frames, height, width = shape[0], *(shape[2:] if planar else shape[1:3])
        rows, columns = _aligned(height, self.height_alignment), _aligned(width, self.width_alignment)
        if self.input_format == NV12:
            return frames, rows * 3 // 2, columns, 1
        if self.input_format == "GRAY":
            return (frames, 1, rows, columns) if planar else (frames, rows, columns, 1)
        row = _aligned(4 * width, self.width_alignment)
        if row % 4:
            reason = f"rows of {width} pixels would have {row} bytes, which is no whole number of {self.input_format}"
            raise ValueError(f"'{self.name}': {reason} pixels")
        return frames, height, row // 4, 4


def _aligned(extent: int, alignment: int) -> int:
    return -(-extent // alignment) * alignment


@dataclass(frozen=True)
class OutputSpec:
    """One output. `format`, of OUTPUT_FORMATS, is what it leaves the network as; `dequantize`: its codes become real
    values again."""

    name: str
    dequantize: bool = True
    layout: str = "NHWC"
    format: str = F32
