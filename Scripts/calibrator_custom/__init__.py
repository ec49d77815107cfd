"""The toolchain from Python: converting, calibrating and compiling models, and simulators of every stage."""

from calibrator_custom import utils
from sgs import __version__
from sgs.python_api.chip import set_soc_version
from sgs.python_api.models import Calibrator as calibrator
from sgs.python_api.models import FixedSimulator as fixed_simulator
from sgs.python_api.models import FloatSimulator as float_simulator
from sgs.python_api.models import OfflineSimulator as offline_simulator
from sgs.python_api.networks import SimCalibrator as SIM_Calibrator
from sgs.python_api.networks import SimSimulator as SIM_Simulator
from sgs.python_api.tools import Compiler as compiler
from sgs.python_api.tools import Converter as converter

__all__ = [
    "SIM_Calibrator",
    "SIM_Simulator",
    "__version__",
    "calibrator",
    "compiler",
    "converter",
    "fixed_simulator",
    "float_simulator",
    "offline_simulator",
    "set_soc_version",
    "utils",
]
