"""What a preprocess script does to a picture, measured on what it returns with norm=True and with norm=False."""

from __future__ import annotations

import numpy as np

from sgs.numeric.quantise import Array

DECIMALS = 4  # at most, of a mean or std that a person wrote
WORSE = 1e-3  # grey levels in the mean, that a rounded mean and std may be further off than the unrounded ones
WORSE_SHARE = 0.05  # of how far off those are
FAR = 1.0  # grey levels in the mean: no mean and std explain the values


def measured_normalisation(
    plain: Array, floats: Array, axis: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) of every channel with which (plain - mean) / std is `floats`, as a person would write them.

    None where there are none: a channel of one grey level tells nothing, and a script may do something else than
    subtract and divide. Both arrays are of one shape, channels on `axis`; results are in the order of the channels.
    """
    channels = [_of_channel(*pair) for pair in zip(_channels(plain, axis), _channels(floats, axis), strict=True)]
    found = [pair for pair in channels if pair is not None]
    if len(found) < len(channels):
        return None
    return tuple(mean for mean, _ in found), tuple(std for _, std in found)


def _channels(values: Array, axis: int) -> Array:
    """[channels, pixels] in float64."""
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)


def _of_channel(pixels: Array, values: Array) -> tuple[float, float] | None:
    """Least squares of values = (pixels - mean) / std, then the fewest decimals that do about as well."""
    centred = pixels - pixels.mean()
    spread = float(centred @ centred)
    slope = float(centred @ values) / spread if spread else 0.0
    if slope <= 0:
        return None
    std = 1 / slope
    mean = float(pixels.mean() - std * values.mean())
    error = _levels(pixels, values, mean, std)
    if error > FAR:
        return None
    allowed = error * (1 + WORSE_SHARE) + WORSE
    places = sorted(((a, b) for a in range(DECIMALS + 1) for b in range(DECIMALS + 1)), key=lambda pair: sum(pair))
    for of_mean, of_std in places:
        rounded = round(mean, of_mean) + 0.0, round(std, of_std)  # + 0.0: no negative zero
        if rounded[1] > 0 and _levels(pixels, values, *rounded) <= allowed:
            return rounded
    return mean, std


def _levels(pixels: Array, values: Array, mean: float, std: float) -> float:
    """How far values are from (pixels - mean) / std in the mean, in grey levels."""
    return float(np.abs(pixels - mean - values * std).mean())


def channel_order(picture: Array, plain: Array, axis: int) -> str | None:
    """RGB or BGR, whichever order the channels of `plain` have; None where the colours of the picture do not tell.

    Args:
        picture: the file as OpenCV decodes it, uint8 [H, W, 3] in the order B, G, R.
        plain: what a script made of it, 3 channels on `axis`; perhaps resized, cropped, or with grey borders, so that
            only tints compare: how far the mean of each channel is from that of all three.
    """
    blue_first = _tint(picture.reshape(-1, 3).mean(axis=0))
    found = _tint(_channels(plain, axis).mean(axis=1))
    apart = {"BGR": _apart(found, blue_first), "RGB": _apart(found, blue_first[::-1])}
    closest, other = sorted(apart, key=lambda order: apart[order])
    return closest if apart[other] > max(4 * apart[closest], 4.0) else None


def _tint(means: Array) -> Array:
    return np.asarray(means - means.mean())


def _apart(found: Array, tint: Array) -> float:
    """How far `found` is from the tint, or from whatever share of it grey borders leave of it."""
    square = float(tint @ tint)
    share = min(1.0, max(0.0, float(found @ tint) / square)) if square else 0.0
    return float(np.abs(found - share * tint).max())
