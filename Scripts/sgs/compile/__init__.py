"""Fixed graph → offline image: legalise, plan memory, predict cost, emit commands."""

from sgs.compile.lower import compile_graph
from sgs.compile.summary import Summary, summarise

__all__ = ["Summary", "compile_graph", "summarise"]
