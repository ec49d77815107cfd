"""Seeded renderer of every picture used with the sample models.

Three families of pictures are drawn:

* **digits** - handwritten digits (scikit-learn's ``load_digits``, 8x8 grey glyphs) placed on coloured, noisy
  64x64 RGB pictures; one digit per picture, ten classes.
* **faint digits** - the same glyphs, small and often barely visible, on noisier 32x32 RGB pictures: a classifier is
  wrong on some of them, and small errors in its logits show.
* **shapes** - circles, squares, triangles and stars on cluttered gradient 128x128 RGB pictures; one to five
  shapes per picture with tight bounding boxes and masks, four classes.

The training scripts import this module, so training, calibration and test pictures come from the same
distribution. Every picture has its own random generator derived from ``(SEED, stream, indices)``; the streams of the
splits never meet, and the digit splits also use different handwritten glyphs.

Run ``python render.py`` to rewrite the calibration and test folders beside this file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

SEED = 20240517
DIGIT_SIZE = 64
FAINT_SIZE = 32
SHAPE_SIZE = 128
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPE_NAMES = ("circle", "square", "triangle", "star")

STREAMS = {"train": 0, "validation": 1, "calibration": 2, "test": 3}
"""Random stream number of each split; also the order in which digit glyphs are shared out from the end."""
DIGIT_HELD_OUT = {"test": 64, "calibration": 32, "validation": 200}
"""Number of handwritten glyphs kept out of training, per split."""
DIGIT_FAMILY, SHAPE_FAMILY, FAINT_FAMILY = 0, 1, 2

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
MIN_CONTRAST = 60.0
"""Smallest luma difference (0..255) between a figure and the background behind it."""
FAINT_CONTRAST = (12.0, 150.0)
"""Range of the difference (0..255, mean of the channels) between a faint digit and the background behind it."""


class ShapeScene(NamedTuple):
    """One rendered shapes picture with its ground truth."""

    image: np.ndarray
    """uint8 RGB picture, [128, 128, 3]."""
    boxes: np.ndarray
    """float32 tight boxes in pixels, [N, 4] as (x, y, width, height)."""
    classes: np.ndarray
    """int64 class indices into ``SHAPE_NAMES``, [N]."""
    mask: np.ndarray
    """uint8 class index + 1 of the shape that covers half of a pixel or more, 0 for the background, [128, 128]."""


def generator(family: int, split: str, *indices: int) -> np.random.Generator:
    """Return the random generator of one picture, unique to (family, split, indices)."""
    return np.random.default_rng([SEED, family, STREAMS[split], *indices])


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a linear two-colour gradient in a random direction.

    Returns:
        float32 RGB picture in 0..255, [size, size, 3].
    """
    first = rng.uniform(20, 235, 3)
    second = np.clip(first + rng.uniform(-60, 60, 3), 0, 255)
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size)
    ramp = np.clip(0.5 + 0.8 * (axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)), 0, 1)[..., None]
    return (first * (1 - ramp) + second * ramp).astype(np.float32)


def contrasting_colour(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """Pick an RGB colour whose luma differs from the mean of ``behind`` by at least ``MIN_CONTRAST``.

    Args:
        rng: random generator of the picture.
        behind: float32 RGB pixels the figure will cover, [..., 3].

    Returns:
        float32 colour in 0..255, [3].
    """
    luma = float(behind.reshape(-1, 3).mean(axis=0) @ LUMA)
    while True:
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        if abs(float(colour @ LUMA) - luma) >= MIN_CONTRAST:
            return colour


def finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Apply camera effects (brightness, blotches, sensor noise) and round to 8 bits.

    Args:
        rng: random generator of the picture.
        image: float32 RGB picture in 0..255, [H, W, 3].

    Returns:
        uint8 RGB picture, [H, W, 3].
    """
    height, width = image.shape[:2]
    blotches = rng.normal(0, rng.uniform(0, 12), (height // 8, width // 8, 3)).astype(np.float32)
    blotches = cv2.resize(blotches, (width, height), interpolation=cv2.INTER_LINEAR)
    grain = rng.normal(0, rng.uniform(0.5, 2.2), (height, width, 1))
    image = (image + blotches) * rng.uniform(0.7, 1.2) + grain
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def load_glyphs(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the handwritten glyphs of one split; no glyph belongs to two splits.

    Args:
        split: ``train``, ``validation``, ``calibration`` or ``test``.

    Returns:
        float32 glyph coverage in 0..1, [N, 8, 8], and int64 class indices, [N].
    """
    from sklearn.datasets import load_digits  # the detector and its pictures do not need scikit-learn

    data = load_digits()
    order = np.random.default_rng(SEED).permutation(len(data.target))
    start = 0
    for name, count in DIGIT_HELD_OUT.items():
        if name == split:
            order = order[start : start + count]
            break
        start += count
    else:
        order = order[start:]
    return (data.images[order] / 16.0).astype(np.float32), data.target[order].astype(np.int64)


def pose_glyph(
    rng: np.random.Generator, glyph: np.ndarray, size: int, zooms: tuple[float, float], tilt: float
) -> np.ndarray:
    """Place one glyph at random on an empty picture.

    Args:
        rng: random generator of the picture.
        glyph: float32 coverage in 0..1, [8, 8].
        size: height and width of the picture in pixels.
        zooms: smallest and largest side of a glyph cell in pixels.
        tilt: largest rotation to either side in degrees.

    Returns:
        float32 coverage in 0..1, [size, size, 1].
    """
    zoom = rng.uniform(*zooms)
    matrix = cv2.getRotationMatrix2D((4.5, 4.5), rng.uniform(-tilt, tilt), zoom)
    slack = (size - 8 * zoom) / 2
    centre = size / 2 + rng.uniform(-slack, slack, 2)
    matrix[:, 2] += centre - 4.5
    coverage = cv2.warpAffine(np.pad(glyph, 1), matrix, (size, size), flags=cv2.INTER_CUBIC)
    return np.clip(coverage * 1.3 - 0.1, 0, 1)[..., None]


def render_digit(rng: np.random.Generator, glyph: np.ndarray) -> np.ndarray:
    """Draw one handwritten glyph with random pose and colours.

    Args:
        rng: random generator of the picture.
        glyph: float32 coverage in 0..1, [8, 8].

    Returns:
        uint8 RGB picture, [64, 64, 3].
    """
    image = background(rng, DIGIT_SIZE)
    coverage = pose_glyph(rng, glyph, DIGIT_SIZE, (4.2, 6.4), 12)
    colour = contrasting_colour(rng, image)
    return finish(rng, image * (1 - coverage) + colour * coverage)


def render_faint_digit(
    rng: np.random.Generator, glyph: np.ndarray, least_contrast: float = FAINT_CONTRAST[0]
) -> np.ndarray:
    """Draw one handwritten glyph as a small step of colour, lighter or darker than what is behind it, under noise.

    Args:
        rng: random generator of the picture.
        glyph: float32 coverage in 0..1, [8, 8].
        least_contrast: lower end of the contrasts, in 0..255; training begins with plainer digits.

    Returns:
        uint8 RGB picture, [32, 32, 3].
    """
    image = background(rng, FAINT_SIZE)
    coverage = pose_glyph(rng, glyph, FAINT_SIZE, (2.4, 3.4), 20)
    contrast = np.exp(rng.uniform(np.log(least_contrast), np.log(FAINT_CONTRAST[1])))
    step = contrast * rng.choice((-1, 1)) * rng.uniform(0.5, 1.5, 3)
    noise = rng.normal(0, rng.uniform(2, 9), image.shape)
    return finish(rng, image + coverage * step + noise)


def digits(split: str) -> Iterator[tuple[np.ndarray, int]]:
    """Picture and class of every held-out glyph of ``split``, drawn once."""
    for index, (glyph, label) in enumerate(zip(*load_glyphs(split), strict=True)):
        yield render_digit(generator(DIGIT_FAMILY, split, index), glyph), int(label)


def faint_digits(split: str, renderings: int) -> Iterator[tuple[np.ndarray, int]]:
    """Picture and class of every held-out glyph of ``split``, drawn ``renderings`` times."""
    glyphs, labels = load_glyphs(split)
    for rendering in range(renderings):
        for index, (glyph, label) in enumerate(zip(glyphs, labels, strict=True)):
            yield render_faint_digit(generator(FAINT_FAMILY, split, rendering, index), glyph), int(label)


def shape_outline(rng: np.random.Generator, class_index: int) -> np.ndarray:
    """Return the outline of one shape around the origin, in pixels, float64 [V, 2]."""
    radius = rng.uniform(10, 30)
    corners, inner = ((48, 1.0), (4, 1.0), (3, 1.0), (10, rng.uniform(0.4, 0.5)))[class_index]
    angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    radii = np.where(np.arange(corners) % 2 == 1, radius * inner, radius)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def boxes_touch(box: np.ndarray, others: list[np.ndarray], margin: float = 2.0) -> bool:
    """Tell whether an (x0, y0, x1, y1) box comes within ``margin`` pixels of any of the others."""
    return any(
        box[0] < other[2] + margin
        and other[0] < box[2] + margin
        and box[1] < other[3] + margin
        and other[1] < box[3] + margin
        for other in others
    )


def draw_clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw up to four thin line segments on a float32 RGB picture [S, S, 3], in place."""
    for _ in range(int(rng.integers(0, 5))):
        start, end = rng.integers(0, SHAPE_SIZE, (2, 2)).tolist()
        colour = rng.uniform(0, 255, 3).tolist()
        cv2.line(image, start, end, colour, thickness=int(rng.integers(1, 3)))


def polygon_coverage(outline: np.ndarray) -> np.ndarray:
    """Return how much of every pixel a filled polygon covers, anti-aliased.

    Args:
        outline: float64 vertices in continuous pixel coordinates (the picture spans 0..S), [V, 2].

    Returns:
        float32 in 0..1, [S, S, 1].
    """
    mask = np.zeros((SHAPE_SIZE, SHAPE_SIZE), np.uint8)
    fixed_point = np.rint((outline - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed_point], 255, lineType=cv2.LINE_AA, shift=4)
    return mask[..., None].astype(np.float32) / 255


def render_shapes(rng: np.random.Generator) -> ShapeScene:
    """Draw one to five shapes that do not touch, with their boxes, classes and mask."""
    image = background(rng, SHAPE_SIZE)
    mask = np.zeros((SHAPE_SIZE, SHAPE_SIZE), np.uint8)
    draw_clutter(rng, image)
    corners: list[np.ndarray] = []
    classes: list[int] = []
    wanted = int(rng.integers(1, 6))
    for _ in range(40):
        if len(corners) == wanted:
            break
        class_index = int(rng.integers(len(SHAPE_NAMES)))
        outline = shape_outline(rng, class_index)
        low, high = outline.min(axis=0), outline.max(axis=0)
        shift = rng.uniform(1 - low, SHAPE_SIZE - 1 - high)
        box = np.concatenate([low + shift, high + shift])
        if boxes_touch(box, corners):
            continue
        x0, y0, x1, y1 = box.astype(int)
        colour = contrasting_colour(rng, image[y0 : y1 + 1, x0 : x1 + 1])
        coverage = polygon_coverage(outline + shift)
        image = image * (1 - coverage) + colour * coverage
        mask[coverage[..., 0] >= 0.5] = class_index + 1
        corners.append(box)
        classes.append(class_index)
    boxes = np.array(corners, dtype=np.float32)
    boxes[:, 2:] -= boxes[:, :2]
    return ShapeScene(finish(rng, image), boxes, np.array(classes, dtype=np.int64), mask)


def fresh_folder(folder: Path) -> Path:
    """Create ``folder`` if needed, remove the PNG pictures of an earlier run and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    return folder


def write_png(path: Path, image: np.ndarray) -> None:
    """Write one uint8 picture, RGB [H, W, 3] or of one channel [H, W], as a PNG file."""
    stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    if not cv2.imwrite(str(path), stored, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise OSError(f"cannot write {path}")


def write_digits(folder: Path, pictures: Iterable[tuple[np.ndarray, int]], with_labels: bool) -> None:
    """Write pictures of digits, and ``labels.csv`` with their classes when labels are asked for."""
    fresh_folder(folder)
    rows = []
    for index, (image, label) in enumerate(pictures):
        name = f"digit_{index:03d}.png"
        write_png(folder / name, image)
        rows.append((name, label, DIGIT_NAMES[label]))
    if with_labels:
        with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("file", "class_index", "name"))
            writer.writerows(rows)


def write_shapes(folder: Path, split: str, count: int, with_labels: bool) -> None:
    """Write ``count`` shapes pictures of ``split``; when labels are asked for, also COCO ``instances.json`` and, in the
    folder ``<folder>_masks`` beside it, the class of every pixel.
    """
    fresh_folder(folder)
    masks = fresh_folder(folder.with_name(f"{folder.name}_masks")) if with_labels else None
    images, annotations = [], []
    for index in range(count):
        scene = render_shapes(generator(SHAPE_FAMILY, split, index))
        name = f"shapes_{index:03d}.png"
        write_png(folder / name, scene.image)
        if masks is not None:
            write_png(masks / name, scene.mask)
        images.append({"id": index + 1, "file_name": name, "width": SHAPE_SIZE, "height": SHAPE_SIZE})
        for box, class_index in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": class_index + 1,
                    "bbox": [round(value, 2) for value in box],
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                }
            )
    if with_labels:
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(SHAPE_NAMES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "instances.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Rewrite the calibration and test pictures beside this file."""
    root = Path(__file__).resolve().parent
    write_digits(root / "digits" / "calibration", digits("calibration"), with_labels=False)
    write_digits(root / "digits" / "test", digits("test"), with_labels=True)
    write_digits(root / "faint_digits" / "calibration", faint_digits("calibration", 4), with_labels=False)
    write_digits(root / "faint_digits" / "test", faint_digits("test", 1), with_labels=True)
    write_shapes(root / "shapes" / "calibration", "calibration", 32, with_labels=False)
    write_shapes(root / "shapes" / "test", "test", 32, with_labels=True)


if __name__ == "__main__":
    main()
