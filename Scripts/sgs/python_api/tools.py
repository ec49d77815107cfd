"""What ConvertTool and the compiler do, as objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgs.cli.compiler_tool import compile_file
from sgs.cli.convert_tool import write_float_files
from sgs.cli.names import check_outputs, debug_path, float_path, image_path
from sgs.cli.options import check_platform
from sgs.img import write_image
from sgs.numeric.quantise import Array
from sgs.pipelines import convert_onnx, import_parameters, load_config
from sgs.python_api.checks import AnyPath, path_of, told, value_errors
from sgs.python_api.chip import selected_chip


class Converter:
    """A source model, to become a float .sim as with ConvertTool.

    Args:
        platform: of the model, "onnx".
        model_file: the model.
        input_config: its input_config.ini.
        input_shapes: of all inputs, in the order of the ini and the model's layout; for dynamic ones.
        skip_simplify: never try onnxsim.
        quant_file: quantisation parameters for calibration to find in the float .sim.

    Raises:
        ValueError: a platform that is not available.
    """

    def __init__(
        self,
        platform: str,
        *,
        model_file: AnyPath,
        input_config: AnyPath,
        input_shapes: Sequence[Sequence[int]] | None = None,
        skip_simplify: bool = False,
        quant_file: AnyPath | None = None,
    ) -> None:
        with value_errors():
            check_platform("converter", [platform])
        self._model = path_of(model_file, "model_file")
        self._config = path_of(input_config, "input_config")
        self._quant_file = None if quant_file is None else path_of(quant_file, "quant_file")
        self._shapes, self._skip = input_shapes, skip_simplify

    def convert(self, output_file: AnyPath) -> str:
        """Write the float .sim and Debug_<name>, the untouched import, beside it.

        Returns the path of the float .sim: `output_file`, or Converted_Net_float.sim where that is a folder. Raises
        ValueError for a model or an ini that cannot be used, and an output that cannot be written.
        """
        with value_errors():
            target = float_path(str(path_of(output_file, "output_file")))
            read = [self._model, self._config, *([] if self._quant_file is None else [self._quant_file])]
            check_outputs([target, debug_path(target)], read)
            imported, graph = convert_onnx(
                self._model, load_config(self._config), input_shapes=self._shapes, skip_simplify=self._skip
            )
            if self._quant_file is not None:
                import_parameters(graph, self._quant_file)
            write_float_files(imported, graph, target)
        return str(target)


class Compiler:
    """A fixed .sim, to become an offline .img for the chip that `set_soc_version` chose.

    Args:
        model_path: the fixed .sim.
        batch: frames of a run: the largest number (n_buf), or one or several that are legal (one_buf).
        batch_mode: "n_buf", every frame in buffers of its own, or "one_buf", frames stacked in one.
        inplace_input_buf: the network may overwrite its inputs; for one_buf and RAWDATA_F32_NHWC.
        category: Classification, Detection or Unknown; that of the model where it is None.

    Raises:
        ValueError: `batch` holds something other than whole numbers.
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
        self._batches = _whole_numbers(batch)
        self._mode, self._inplace, self._category = batch_mode, inplace_input_buf, category

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


def _whole_numbers(batch: object) -> tuple[int, ...]:
    several: Sequence[Any] | Array = batch if isinstance(batch, (list, tuple, range, np.ndarray)) else [batch]
    if not all(isinstance(number, (int, np.integer)) for number in several):
        raise ValueError(f"batch: expected a whole number or a list of them, got {told(batch)}")
    return tuple(int(number) for number in several)
