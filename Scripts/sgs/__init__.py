"""An open IPU toolchain: source model → float .sim → fixed .sim → offline .img, and simulators for each.

Packages import one way: errors ← numeric ← ir ← registry ← ops ← {config, frontends, sim, img, passes, engine, data}
← {quant, retrain, compile, report} ← pipelines ← cli. `tests/test_conventions.py` checks it.
"""

__version__ = "0.1.0"
