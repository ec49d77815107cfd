"""Execution of graphs: onnxruntime sessions (float and fixed) and the numpy reference of the integers."""

import sgs.ops  # noqa: F401  fills the tables, in worker processes as well
from sgs.engine.fixed import FixedEngine
from sgs.engine.float_session import FloatEngine
from sgs.engine.reference import run_reference

__all__ = ["FixedEngine", "FloatEngine", "run_reference"]
