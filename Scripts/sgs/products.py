"""The files that tools make: what they are called when `-o` names a folder or nothing, what may not be overwritten, and
what is written into them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sgs.config.chips import Chip
from sgs.data.files import STAGE, atomic_outputs, check_output
from sgs.errors import UserError
from sgs.evaluate.categories import check_category
from sgs.img import Image
from sgs.ir import Graph
from sgs.pipelines import compile_fixed
from sgs.sim import expect_stage, read_sim, write_sim

REPORT_FILES = (".json", ".csv", ".html", ".trace.json")
DEFAULT_FLOAT = "Converted_Net_float.sim"


def float_path(output: str) -> Path:
    """ConvertTool's --output_file: a folder gets the default name."""
    return _named(Path(output), DEFAULT_FLOAT, ".sim")


def debug_path(float_sim: Path) -> Path:
    """The untouched import beside a float .sim."""
    return float_sim.with_name(f"Debug_{float_sim.name}")


def fixed_path(model: Path, output: str | None) -> Path:
    """`x_float.sim` → `x_fixed.sim`, `x.sim` → `x_fixed.sim`, beside the model or in the folder that `output` names."""
    _check_model(model)
    stem = model.name.removesuffix(".sim").removesuffix("_float")
    default = f"{stem}_fixed.sim"
    return model.with_name(default) if output is None else _named(Path(output), default, ".sim")


def quant_info_path(fixed_sim: Path) -> Path:
    """The plan record beside a fixed .sim."""
    return fixed_sim.with_name(fixed_sim.name.removesuffix(".sim") + "_quant_info.json")


def report_path(fixed_sim: Path) -> Path:
    """The report on every layer beside a fixed .sim."""
    return fixed_sim.with_name(fixed_sim.stem + "_report.json")


def statistics_path(fixed_sim: Path) -> Path:
    """The statistics beside a fixed .sim."""
    return fixed_sim.with_name(fixed_sim.stem + "_statistics.npz")


def partial_path(output: Path) -> Path:
    """The statistics of an interrupted run beside the .sim or .img that it was to write."""
    return output.with_name(output.stem + "_partial.npz")


def retrain_path(output: Path) -> Path:
    """The folder of a mode beside the .sim or .img that it writes: the sensitivities of mixed precision, and what an
    interrupted run goes on from."""
    return output.with_name(output.stem + "_retrain")


def image_path(model: Path, output: str | None) -> Path:
    """`x_fixed.sim` → `x_fixed.sim_sgsimg.img`, beside the model or in the folder that `output` names."""
    _check_model(model)
    default = f"{model.name}_sgsimg.img"
    return model.with_name(default) if output is None else _named(Path(output), default, ".img")


def compile_report_paths(image: Path, given: str | None) -> tuple[Path, ...]:
    """--report of an .img, in the order of `REPORT_FILES`: `x.img` → `x_report.json` and so on, beside it, in the
    folder `given`, or under the name given, with or without one of the endings; none where it is None."""
    if given is None:
        return ()
    stem = f"{image.name.removesuffix('.img')}_report"
    base = image.with_name(stem)
    if given:
        base = Path(given)
        if base.is_dir() or given.endswith(("/", os.sep)):
            base /= stem
        ending = next((ending for ending in REPORT_FILES[::-1] if base.name.endswith(ending)), "")
        if not base.name.removesuffix(ending):
            raise UserError("is not a name", stage=STAGE, file=given, node="--report", remedy="name a folder or a file")
        base = base.with_name(base.name.removesuffix(ending))
    return tuple(base.with_name(base.name + ending) for ending in REPORT_FILES)


def single_image_path(output: str) -> Path:
    """SGS_converter's --output_file, which must be a file."""
    return _named(Path(output), None, ".img")


def exported_paths(image: Path) -> tuple[Path, Path, Path]:
    """(debug, float, fixed) .sim beside an .img, for --export_models."""
    stem = image.name.removesuffix(".img")
    float_sim = image.with_name(f"{stem}_float.sim")
    return debug_path(float_sim), float_sim, image.with_name(f"{stem}_fixed.sim")


def _check_model(model: Path) -> None:
    """Raise UserError for a path without a file name, such as "" or "."."""
    if not model.name or model.is_dir():
        raise UserError("is not a file", stage="arguments", file=str(model), node="-m", remedy="name a .sim file")


def _named(output: Path, default: str | None, extension: str) -> Path:
    if output.is_dir() and default is not None:
        return output / default
    if output.suffix != extension and not output.is_dir():
        folder = "" if default is None else "an existing folder or "
        remedy = f"name {folder}a file that ends in {extension}"
        raise UserError(f"is not a name for {extension[1:]} files", stage=STAGE, file=output, remedy=remedy)
    return output


def check_outputs(outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raise UserError where an output cannot be written, is one of the inputs, or is named twice; for tools to call
    before long work."""
    read = {Path(path).resolve() for path in inputs}
    written: set[Path] = set()
    for output in outputs:
        target = check_output(output)
        if target in read | written:
            reason = "is both an input and an output" if target in read else "is named for two outputs"
            raise UserError(reason, stage=STAGE, file=output, remedy="choose another output name")
        written.add(target)


# -- contents ----------------------------------------------------------------------------------------------------------
def write_float_files(imported: Graph, graph: Graph, target: Path) -> None:
    """Write the float .sim, and the untouched import beside it."""
    with atomic_outputs(debug_path(target), target) as (debug_file, target_file), ThreadPoolExecutor(2) as pool:
        files = [
            pool.submit(write_sim, imported, debug_file, stage="debug"),
            pool.submit(write_sim, graph, target_file, stage="float"),
        ]
        for file in files:
            file.result()


def compile_file(
    model: Path, chip: Chip, category: str | None, batch_mode: str, batches: Sequence[int], inplace_inputs: bool
) -> Image:
    """The offline image of a fixed .sim, which says the category itself where none is given."""
    graph = expect_stage(read_sim(model), "fixed", "compiler.py")
    category = category or str(graph.metadata.get("category", "Unknown"))
    check_category(category, [graph[name] for name in graph.outputs], file=model)
    return compile_fixed(
        graph,
        chip,
        batch_mode=batch_mode,
        batches=batches,
        category=category,
        inplace_inputs=inplace_inputs,
    )
