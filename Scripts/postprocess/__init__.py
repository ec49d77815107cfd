"""Post-processing networks for ConvertTool's --postprocess: docs/POSTPROCESS.md.

A script defines `postprocess(network)`, where `network` is a `Network`: the backbone's outputs, and methods that put
operators behind them. It returns the outputs of the whole. The modules here make detections of the heads that are well
known; each can also be named in place of a script, for the settings that its authors publish.
"""

from postprocess._heads import grid, rows_of
from sgs.postprocess.network import Network

__all__ = ["Network", "grid", "rows_of"]
