"""What ConvertTool and the compiler do, as objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgs.compile.batches import MODES
from sgs.frontends.platforms import PLATFORMS, OptionKind, Platform, platform_named
from sgs.img import write_image
from sgs.img.image import CATEGORIES
from sgs.pipelines import convert, import_parameters, load_config
from sgs.postprocess.join import postprocess_of
from sgs.products import check_outputs, compile_file, debug_path, float_path, image_path, write_float_files
from sgs.python_api.checks import (
    AnyPath,
    expected,
    flag,
    one_of,
    path_of,
    positive,
    several,
    shapes_of,
    text_of,
    texts_of,
    value_errors,
)
from sgs.python_api.chip import selected_chip


class Converter:
    """A source model, to become a float .sim as with ConvertTool.

    Args:
        platform: of the model, such as "onnx".
        input_config: its input_config.ini.
        input_shapes: of all inputs, in the order of the ini and the model's layout; for dynamic ones.
        skip_simplify: never try onnxsim.
        quant_file: quantisation parameters for calibration to find in the float .sim.
        postprocess: a script that puts a post-processing network behind the model, or the name of a shipped one.
        postprocess_input_config: the ini of the whole, with it.
        options: the model and what else ConvertTool's options of the platform say, by their names; for most platforms
            model_file. Lists where ConvertTool takes names separated by commas.

    Raises:
        ValueError: a platform that is not available, arguments that it does not take or needs, and of other kinds.
    """

    def __init__(
        self,
        platform: str,
        *,
        input_config: AnyPath,
        input_shapes: Sequence[Sequence[int]] | None = None,
        skip_simplify: bool = False,
        quant_file: AnyPath | None = None,
        postprocess: AnyPath | None = None,
        postprocess_input_config: AnyPath | None = None,
        **options: object,
    ) -> None:
        if not isinstance(platform, str):
            raise expected("platform", f"one of {', '.join(PLATFORMS)}", platform)
        with value_errors():
            self._platform = platform_named(platform, stage="converter")
        self._values = _values_of(self._platform, options)
        self._config = path_of(input_config, "input_config")
        self._quant_file = _optional(quant_file, "quant_file")
        self._postprocess = _optional(postprocess, "postprocess")
        self._whole = _optional(postprocess_input_config, "postprocess_input_config")
        self._shapes = None if input_shapes is None else shapes_of(input_shapes, "input_shapes")
        if self._shapes is None and self._platform.shapes_required:
            raise expected("input_shapes", f"the shapes of all inputs, which {platform} needs", None)
        self._skip = flag(skip_simplify, "skip_simplify")
        if self._skip and not self._platform.onnx:
            raise expected("skip_simplify", f"False: nothing of {platform} is ever simplified", True)

    def convert(self, output_file: AnyPath) -> str:
        """Write the float .sim and Debug_<name>, the untouched import, beside it.

        Returns the path of the float .sim: `output_file`, or Converted_Net_float.sim where that is a folder. Raises
        ValueError for a model or an ini that cannot be used, and an output that cannot be written.
        """
        with value_errors():
            target = float_path(str(path_of(output_file, "output_file")))
            given = (self._config, self._quant_file, self._postprocess, self._whole)
            others = [file for file in given if file is not None]
            check_outputs([target, debug_path(target)], [*self._platform.files(self._values), *others])
            config = load_config(self._config)
            script, whole = (None if path is None else str(path) for path in (self._postprocess, self._whole))
            imported, graph = convert(
                self._platform.name,
                self._values,
                config,
                input_shapes=self._shapes,
                skip_simplify=self._skip,
                postprocess=postprocess_of(script, whole, config),
            )
            if self._quant_file is not None:
                import_parameters(graph, self._quant_file)
            write_float_files(imported, graph, target)
        return str(target)


def _optional(value: AnyPath | None, name: str) -> Path | None:
    return None if value is None else path_of(value, name)


_READERS: Mapping[OptionKind, Callable[[object, str], Any]] = {
    "file": path_of,
    "folder": path_of,
    "text": text_of,
    "names": texts_of,
    "number": positive,
    "boolean": flag,
    "flag": flag,
}


def _values_of(platform: Platform, given: Mapping[str, object]) -> dict[str, Any]:
    """What arguments say of a platform's options. Raises ValueError where it does not take one, or lacks one."""
    options = {option.name: option for option in platform.options}
    faults = [f"there is no argument {name}" for name in given if name not in options]
    faults += [f"{name} is missing" for name, option in options.items() if option.required and name not in given]
    if faults:
        raise ValueError(f"converter: {'; '.join(faults)}: {platform.name} takes {', '.join(options)}")
    return {
        name: _READERS[options[name].kind](value, name)
        for name, value in given.items()
        if value is not None or options[name].required
    }


class Compiler:
    """A fixed .sim, to become an offline .img for the chip that `set_soc_version` chose.

    Args:
        model_path: the fixed .sim.
        batch: frames of a run: the largest number (n_buf), or one or several that are legal (one_buf).
        batch_mode: "n_buf", every frame in buffers of its own, or "one_buf", frames stacked in one.
        inplace_input_buf: the network may overwrite its inputs; for one_buf and RAWDATA_F32_NHWC.
        category: Classification, Detection or Unknown; that of the model where it is None.

    Raises:
        ValueError: arguments of other kinds.
    """

    def __init__(
        self,
        model_path: AnyPath,
        *,
        batch: int | Sequence[int] = 1,
        batch_mode: str = "n_buf",
        inplace_input_buf: bool = False,
        category: str | None = None,
    ) -> None:
        self._model = path_of(model_path, "model_path")
        single = isinstance(batch, (int, np.integer))
        given = [batch] if single else several(batch, "batch", "a whole number or a list of them")
        self._batches = tuple(positive(frames, "batch") for frames in given)
        self._mode = one_of(batch_mode, "batch_mode", list(MODES))
        self._inplace = flag(inplace_input_buf, "inplace_input_buf")
        self._category = None if category is None else one_of(category, "category", CATEGORIES)

    def compile(self, output: AnyPath | None = None) -> str:
        """Write the .img: `output`, or <fixed .sim>_sgsimg.img in the folder `output` or beside the model.

        Returns its path. Raises ValueError before `set_soc_version`, for a model that the chip does not take and an
        output that cannot be written.
        """
        chip = selected_chip()
        if chip is None:
            raise ValueError("expected set_soc_version before compile, got no chip")
        with value_errors():
            target = image_path(self._model, None if output is None else str(path_of(output, "output")))
            check_outputs([target], [self._model])
            image = compile_file(self._model, chip, self._category, self._mode, self._batches, self._inplace)
            write_image(image, target)
        return str(target)
