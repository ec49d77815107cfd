"""The files of a compiled image: the .img and, on demand, the report on what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sgs.config.chips import Chip
from sgs.data.files import atomic_output
from sgs.img import Image, write_image
from sgs.pipelines import compile_report
from sgs.report.compile import CompileReport
from sgs.report.compile_page import page_text


def write_image_files(
    image: Image,
    chip: Chip,
    file: Path,
    reports: Sequence[Path],
    page: Callable[[Image, CompileReport], str] = page_text,
) -> None:
    """Write the .img and its report, whose files are in the order of `products.REPORT_FILES`, or none; `page` makes the
    page for the browser."""
    write_image(image, file)
    if reports:
        for path, text in zip(reports, compile_report(image, chip, file.stat().st_size, page), strict=True):
            with atomic_output(path) as temporary:  # so that a full disk is said to be met at this file
                temporary.write_text(text, encoding="utf-8", newline="")


def told_of_report(reports: Sequence[Path]) -> str:
    """A line that says where the report's page is; nothing where there is none."""
    pages = [path for path in reports if path.suffix == ".html"]
    return "".join(f"Report at: {path}\n" for path in pages)
