"""Write what is generated in docs/ from the tables, the chip files and the programs' options: `make docs`, or
`python docs/generate.py`. A program that has no page yet gets an empty one."""

import re
import sys
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT / "Scripts"))

from sgs.cli.manual import options_text  # noqa: E402
from sgs.report.documents import MARKERS, between_markers, generated  # noqa: E402

FOLDERS = ("Scripts/ConvertTool", "Scripts/calibrator", "DumpDebug", "Scripts/examples")


def programs() -> dict[str, str]:
    """Path of every program that is a launcher of a module of sgs.cli → name of that module."""
    found = {}
    for file in (file for folder in FOLDERS for file in sorted((ROOT / folder).glob("*.py"))):
        launched = re.search(r"from sgs\.cli\.(\w+) import main", file.read_text("utf-8"))
        if launched:
            found[file.relative_to(ROOT).as_posix()] = launched[1]
    return found


def tool_pages() -> dict[str, str]:
    """File name under docs/ → text, of the page of every program: what is written by hand, with the options as they
    are now."""
    pages = {}
    for program, module in programs().items():
        page = f"tools/{Path(program).stem}.md"
        empty = f"# {Path(program).name}\n\n## Options\n\n{''.join(MARKERS)}"
        text = (DOCS / page).read_text("utf-8") if (DOCS / page).exists() else empty
        pages[page] = between_markers(text, options_text(import_module(f"sgs.cli.{module}")))
    return pages


if __name__ == "__main__":
    for name, text in (generated(DOCS) | tool_pages()).items():
        (DOCS / name).write_text(text, "utf-8")
