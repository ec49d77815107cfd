"""The toolchain's models from Python: simulators of float, fixed and offline files."""

from calibrator_custom import utils
from sgs import __version__
from sgs.python_api import FixedSimulator as fixed_simulator
from sgs.python_api import FloatSimulator as float_simulator
from sgs.python_api import OfflineSimulator as offline_simulator
from sgs.python_api import set_soc_version

__all__ = ["__version__", "fixed_simulator", "float_simulator", "offline_simulator", "set_soc_version", "utils"]
