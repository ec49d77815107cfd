"""What scripts need around the models."""

from sgs.python_api.files import (
    all_path,
    check_quant_param,
    convert_to_input_formats,
    get_out_model_name,
    image_generator,
    image_preprocess_func,
)

__all__ = [
    "all_path",
    "check_quant_param",
    "convert_to_input_formats",
    "get_out_model_name",
    "image_generator",
    "image_preprocess_func",
]
