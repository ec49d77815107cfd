"""Which numbers of frames an image is compiled for."""

from __future__ import annotations

from collections.abc import Sequence

from sgs.config.chips import Chip
from sgs.config.formats import F32
from sgs.errors import UserError
from sgs.img.image import BatchMode
from sgs.ir.graph import Graph

MOST_SIZES = 10
MODES = {"n_buf": BatchMode.N_BUF, "one_buf": BatchMode.ONE_BUF}


def checked_batches(mode: str, batches: int | Sequence[int], chip: Chip) -> tuple[BatchMode, tuple[int, ...]]:
    """The batch mode, and its largest number of frames (n_buf) or its legal ones, ascending (one_buf).

    Raises UserError for a mode that does not exist and for numbers that it or the chip does not take.
    """

    def refuse(node: str, reason: str, remedy: str | None = None) -> UserError:
        return UserError(reason, stage="compile", node=node, remedy=remedy)

    if mode not in MODES:
        raise refuse("batch mode", f"'{mode}' is not one of {', '.join(MODES)}")
    sizes = (batches,) if isinstance(batches, int) else tuple(batches)
    listed = ", ".join(map(str, sizes))
    if not sizes or any(size < 1 or size > chip.max_batch for size in sizes):
        raise refuse("batch", f"'{listed}' is not in the range 1 to {chip.max_batch} of {chip.name}")
    if mode == "n_buf" and len(sizes) > 1:
        raise refuse("batch", f"n_buf takes one number, the largest batch, not '{listed}'", "use one_buf for a list")
    if len(sizes) > MOST_SIZES:
        raise refuse("batch", f"{len(sizes)} batch sizes; one_buf takes up to {MOST_SIZES}")
    return MODES[mode], tuple(sorted(set(sizes)))


def check_inplace(graph: Graph, mode: BatchMode) -> None:
    """Raise UserError unless the inputs may be overwritten: those of one_buf, of real numbers."""
    coded = [name for name in graph.inputs if not graph[name].dtype.is_float]
    if mode is not BatchMode.ONE_BUF:
        raise not_in_place("is for batch mode one_buf")
    if coded:
        raise not_in_place(f"input '{coded[0]}' is no {F32}")


def not_in_place(reason: str) -> UserError:
    """The refusal of --inplace_input_buf."""
    return UserError(reason, stage="compile", node="inplace_input_buf", remedy="leave it out, or say False")
