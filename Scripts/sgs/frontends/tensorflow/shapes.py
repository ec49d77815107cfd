"""The shapes that a caller asks for, and those that a model declares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sgs.errors import UserError, raise_all
from sgs.frontends.model_file import refused
from sgs.frontends.onnx_model import Shape, shapes_in_order
from sgs.frontends.platforms import Asked

Declared = tuple[int | None, ...]


def asked_shapes(asked: Asked, names: Sequence[str], path: Path) -> dict[str, Shape]:
    """The shapes that are asked for, by the `names` of the inputs. Raises UserError for contradictions."""
    shapes = {} if asked.shapes is None else shapes_in_order(asked.shapes, names, path)
    for name, shape in asked.surgery.input_shapes.items():
        if shapes.setdefault(name, shape) != shape:
            reason = f"--input_shapes gives '{name}' the shape {told(shapes[name])}, --inputs {told(shape)}"
            raise refused(path, reason, "give it once")
    return shapes


def single(declared: Iterable[int | None]) -> Declared:
    """A declared shape, of one frame where only the number of frames is free."""
    shape = tuple(declared)
    return (1, *shape[1:]) if len(shape) > 1 and shape[0] is None and None not in shape[1:] else shape


def told(shape: Iterable[int | None]) -> str:
    return ",".join("?" if extent is None else str(extent) for extent in shape)


def static(declared: dict[str, Declared | None], path: Path) -> dict[str, Shape]:
    """Shapes that are static. Raises UserError for inputs whose shapes are not, with an example of what to give."""
    open_ = {name: shape for name, shape in declared.items() if shape is None or None in shape}
    if open_:
        listed = ", ".join(f"'{name}' [{'...' if shape is None else told(shape)}]" for name, shape in open_.items())
        example = ":".join(_example(shape) for shape in declared.values())
        remedy = f"give every input's shape with --input_shapes, for example --input_shapes {example}"
        raise refused(path, f"the shape of input {listed} is not static", remedy)
    return {name: tuple(extent for extent in shape or () if extent is not None) for name, shape in declared.items()}


def _example(shape: Declared | None) -> str:
    extents = (None, None, None, 3) if shape is None else shape
    return ",".join(str(extent or (1 if axis == 0 else 224)) for axis, extent in enumerate(extents))


def check_ranks(given: dict[str, Shape], declared: dict[str, Declared | None], path: Path) -> None:
    """Raise UserError for shapes of another rank than the model's inputs."""
    problems: list[UserError] = [
        refused(
            path,
            f"shape {told(shape)} does not fit input '{name}' [{told(known)}]",
            "give as many positive extents as the input has dimensions",
        )
        for name, shape in given.items()
        if (known := declared.get(name)) is not None and len(known) != len(shape)
    ]
    raise_all(problems, stage="convert", file=path)
