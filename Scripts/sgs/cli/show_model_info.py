"""show_model_info: what a model file is and holds, and everything that ConvertTool would refuse of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgs.cli.options import add_free_dims, shapes, start_log, surgery_of
from sgs.cli.program import Parser, run
from sgs.errors import UserError
from sgs.frontends.onnx_facts import onnx_facts, tflite_facts
from sgs.frontends.onnx_model import read_message
from sgs.frontends.tflite.model import load_tflite
from sgs.img import Image, read_image
from sgs.pipelines import Examined, examine, examine_onnx
from sgs.report.model_info import model_text, problem_facts, sim_facts
from sgs.sim import read_sim
from sgs.simulation import is_image

_KINDS = ".onnx, .tflite, .sim, .img"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def _parser() -> Parser:
    description = "Show what a model is and holds, and everything that ConvertTool would refuse of it."
    parser = Parser(prog="show_model_info.py", description=description)
    parser.add_argument("model", metavar="MODEL", help=f"a model file: {_KINDS}")
    add_free_dims(parser)
    text = "shapes of the inputs, in the model's order, like 1,3,224,224:1,10 (default: free extents are guessed)"
    parser.add_argument("--input_shapes", metavar="SHAPES", type=shapes, help=text)
    parser.add_argument("--skip_simplify", action="store_true", help="ONNX: never try onnxsim")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    return parser


def _body(argv: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    start_log(argparse.Namespace(show_log=False, verbose=0))
    facts = _facts(Path(options.model), options, parser.prog)
    print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else model_text(facts))
    return 0


def _facts(path: Path, options: argparse.Namespace, stage: str) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _onnx(path, options)
    if suffix == ".tflite":
        return _tflite(path, options)
    if suffix not in (".sim", ".img"):
        reason = f"has the extension '{path.suffix}'"
        raise UserError(reason, stage=stage, file=path, remedy=f"models that can be shown are {_KINDS}")
    return _image(read_image(path), path) if is_image(path, stage=stage) else sim_facts(read_sim(path), path)


def _onnx(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    proto, digest = read_message(path)
    facts = onnx_facts(proto, path)
    found = examine_onnx(
        proto,
        digest,
        path,
        input_shapes=options.input_shapes,
        surgery=surgery_of(options),
        skip_simplify=options.skip_simplify,
    )
    return {**facts, **_problems(found)}


def _tflite(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    source = load_tflite(path)
    found = examine(source, input_shapes=options.input_shapes, surgery=surgery_of(options))
    return {**tflite_facts(source.proto, path), **_problems(found)}


def _problems(found: Examined) -> dict[str, Any]:
    """What was assumed of a model, and what would be refused of it."""
    facts: dict[str, Any] = {}
    facts["assumed_shapes"] = {name: list(shape) for name, shape in found.assumed.items()}
    facts["problems"] = problem_facts(found.refusal)
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
