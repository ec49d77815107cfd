"""Write what is generated in docs/ from the tables and the chip files: `make docs`, or `python docs/generate.py`."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "Scripts"))

from sgs.report.documents import generated  # noqa: E402

if __name__ == "__main__":
    for name, text in generated(DOCS).items():
        (DOCS / name).write_text(text, "utf-8")
