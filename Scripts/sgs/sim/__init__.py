"""Read and write .sim files: graphs in a TFLite-compatible container (schema/README.md)."""

from sgs.sim.read import SimFile, expect_stage, read_sim
from sgs.sim.write import sim_bytes, write_sim

__all__ = ["SimFile", "expect_stage", "read_sim", "sim_bytes", "write_sim"]
