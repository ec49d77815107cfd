"""PyTorch: programs of torch.export and TorchScript archives, as a platform.

PyTorch's own exporter turns both into ONNX in memory; a TorchScript archive is first made a program of torch.export by
running it once on tensors without values.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from sgs.errors import UserError
from sgs.frontends.model_file import digest_of, first_line, refused
from sgs.frontends.onnx_model import SourceModel, normalised
from sgs.frontends.platforms import Asked, Option, Platform, model_path, require_packages
from sgs.frontends.pytorch.files import kind_of, namespaces

_PACKAGES = ("torch", "onnxscript")
_SMALL = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
_log = logging.getLogger(__name__)
# namespace of operators → module whose import defines them
_DEFINED_BY = {"quantized_decomposed": "torch.ao.quantization.fx._decomposed", "torchvision": "torchvision"}
_DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


def _load(values: Mapping[str, Any], asked: Asked) -> SourceModel:
    path = model_path(values)
    kind = kind_of(path)
    dtypes = values["input_dtypes"]
    _check_dtypes(path, dtypes)
    _check_packages()
    _register_operators(path)
    from sgs.frontends.pytorch import program as programs
    from sgs.frontends.pytorch import script, translate

    with _quiet():
        read = programs.read if kind == "program" else script.read
        program = read(path, asked, dtypes)
        proto = translate.translated(program)
    for remark in program.remarks:
        _log.warning("%s: %s", path, remark)
    for line in (*program.told, *translate.name_ports(proto, asked)):
        _log.info("%s: %s", path, line)
    source = normalised(proto, path, digest_of(path))
    return replace(source, judge=translate.judge_of(program, proto)) if values["verify"] else source


def _check_dtypes(path: Path, dtypes: tuple[str, ...] | None) -> None:
    unknown = [name for name in dtypes or () if name not in _DTYPES]
    if unknown:
        raise refused(path, f"--input_dtypes names {', '.join(unknown)}", f"there are: {', '.join(_DTYPES)}")


def _check_packages() -> None:
    """Raise UserError where a package that the platform needs is not installed, or does not work."""
    require_packages(_PACKAGES, "torch", f"; for the small build without CUDA first {_SMALL}")
    for name in _PACKAGES:
        try:
            with _quiet():
                import_module(name)
        except (ImportError, OSError) as error:  # OSError: a library that it loads is not there
            reason = f"the Python package {name} cannot be imported: {first_line(error)}"
            remedy = (
                f"install it again: pip uninstall {name}, then {_SMALL if name == 'torch' else f'pip install {name}'}"
            )
            raise UserError(reason, stage="convert", remedy=remedy) from error


def _register_operators(path: Path) -> None:
    """Import what defines the operators of a file that are not PyTorch's own. Raises UserError where it cannot be."""
    found = namespaces(path)
    for namespace, module in _DEFINED_BY.items():
        if namespace in found:
            try:
                with _quiet():
                    import_module(module)
            except (ImportError, RuntimeError) as error:  # RuntimeError: built for another version of PyTorch
                reason = f"calls operators of {namespace}, but {module} cannot be imported: {first_line(error)}"
                raise refused(path, reason, f"install the {module.split('.')[0]} that goes with torch") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that PyTorch has to say reaches the user: what matters is in the errors that it raises."""
    silenced = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(silenced)


PYTORCH = Platform(
    "pytorch",
    "PyTorch program",
    (
        Option("model_file", "the .pt2 or TorchScript file", "file", required=True),
        Option("input_dtypes", "element types of a TorchScript network's inputs, like float32,int64", "names"),
        Option("verify", "compare the float .sim with PyTorch on random inputs", "flag"),
    ),
    _load,
    takes_shapes=True,
    suffixes=(".pt2", ".pt", ".pth", ".ptl"),
)
