"""show_model_info: what a model file is and holds, and everything that ConvertTool would refuse of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgs.cli.networks import Chosen, chosen_file, chosen_of, kinds, look_at
from sgs.cli.options import add_free_dims, add_model, platform_first, shapes, start_log
from sgs.cli.program import Parser, run
from sgs.frontends.onnx_facts import onnx_facts, source_facts
from sgs.frontends.onnx_model import read_message
from sgs.frontends.platforms import PLATFORMS, Platform
from sgs.img import Image, read_image
from sgs.report.model_info import model_text, problem_facts, sim_facts
from sgs.sim import read_sim
from sgs.simulation import is_image

_PROGRAM = "show_model_info.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser(platform: Platform | None = None) -> Parser:
    """The options of the program, for a model of a platform that is named first or for one that is not."""
    description = "Show what a model is and holds, and everything that ConvertTool would refuse of it. "
    if platform is not None:
        parser = Parser(prog=f"{_PROGRAM} {platform.name}", description=description)
        add_model(parser, platform)
    else:
        description += f"Models of other platforms: {_PROGRAM} PLATFORM ..., of {', '.join(PLATFORMS)}."
        parser = Parser(prog=_PROGRAM, description=description)
        parser.add_argument("model", metavar="MODEL", help=f"a model file: {kinds()}")
        add_free_dims(parser)
        text = "shapes of the inputs, in the model's order, like 1,3,224,224:1,10 (default: free extents are guessed)"
        parser.add_argument("--input_shapes", metavar="SHAPES", type=shapes, help=text)
    if platform is None or platform.onnx:
        parser.add_argument("--skip_simplify", action="store_true", help="never try onnxsim")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    return parser


def _body(argv: list[str]) -> int:
    platform, rest = platform_first(argv, stage=_PROGRAM)
    options = parser(platform).parse_args(rest)
    start_log(argparse.Namespace(show_log=False, verbose=0))
    if platform is None:
        chosen = chosen_file(Path(options.model), options, stage=_PROGRAM)
    else:
        chosen = chosen_of(platform, options)
    facts = _facts(chosen, options)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else model_text(facts))
    return 0


def _facts(chosen: Chosen, options: argparse.Namespace) -> dict[str, Any]:
    path = chosen.path
    if chosen.platform is None:
        return _image(read_image(path), path) if is_image(path, stage=_PROGRAM) else sim_facts(read_sim(path), path)
    facts = onnx_facts(read_message(path)[0], path) if chosen.platform.name == "onnx" else None
    found = look_at(chosen.platform, chosen.values, None, options)
    if facts is None:
        if found.source is None:
            assert found.refusal is not None
            raise found.refusal
        facts = source_facts(found.source, chosen.platform.kind)
    facts["assumed_shapes"] = {name: list(shape) for name, shape in found.assumed.items()}
    facts["problems"] = problem_facts(found.refusal)
    if found.agreement:
        facts["agreement"] = [one.text for one in found.agreement]
    if found.refusal is None:
        facts["not_fixed"] = problem_facts(found.not_fixed)
    return facts


def _image(image: Image, path: Path) -> dict[str, Any]:
    return {
        "kind": "offline .img",
        "file": str(path),
        "file_bytes": path.stat().st_size,
        "graph": image.model_name,
        "chip": image.chip,
        **{
            side: [
                {"name": port.name, "dtype": port.dtype.name.lower(), "shape": list(port.shape), "denotations": {}}
                for port in getattr(image, side)
            ]
            for side in ("inputs", "outputs")
        },
        "more": "show_img_info.py and show_tensor_info.py tell the rest",
    }


if __name__ == "__main__":
    sys.exit(main())
