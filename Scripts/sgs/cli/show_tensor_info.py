"""show_tensor_info: the tensors of a .sim or an .img."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgs.cli.program import Parser, run
from sgs.config.nearest import did_you_mean
from sgs.errors import UserError, raise_all
from sgs.img import read_image
from sgs.report.tensor_info import graph_tensors, image_tensors, tensor_lines, tensors_table
from sgs.sim import read_sim
from sgs.simulation import is_image


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="show_tensor_info.py", description="Show the tensors of a float or fixed .sim, or of an .img.")
    text = "the .sim or .img"
    parser.add_argument("-m", "--model", "--model_file", dest="model", metavar="FILE", required=True, help=text)
    text = "show these in full (default: all, a line each)"
    parser.add_argument("--tensor", metavar="NAME", nargs="+", help=text)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    return parser


def _body(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    file = Path(options.model)
    image = is_image(file, stage="show_tensor_info.py")
    facts = image_tensors(read_image(file)) if image else graph_tensors(read_sim(file).graph)
    if options.tensor is not None:
        facts = _chosen(facts, options.tensor, options.model)
    if options.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False))
    elif options.tensor is not None:
        print("\n\n".join("\n".join(tensor_lines(one)) for one in facts))
    else:
        print("\n".join(tensors_table(facts)))
    return 0


def _chosen(facts: Sequence[dict[str, Any]], names: Sequence[str], file: str) -> list[dict[str, Any]]:
    """The tensors of these names, in their order. Raises UserError naming all that there are not."""
    by_name = {one["name"]: one for one in facts}
    unknown = [name for name in dict.fromkeys(names) if name not in by_name]
    problems = [
        UserError(f"there is no tensor '{name}'", stage="--tensor", file=file, remedy=did_you_mean(name, by_name))
        for name in unknown
    ]
    raise_all(problems, stage="--tensor", file=file)
    return [by_name[name] for name in dict.fromkeys(names)]


if __name__ == "__main__":
    sys.exit(main())
