"""What scripts need around the models."""

from sgs.python_api import check_quant_param, convert_to_input_formats

__all__ = ["check_quant_param", "convert_to_input_formats"]
