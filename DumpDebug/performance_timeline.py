#!/usr/bin/env python3
"""Writes the commands of an .img as a trace, and tells the slowest."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Scripts/ takes the place of this folder, whose file names would shadow modules.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "Scripts")
    from sgs.cli.performance_timeline import main

    sys.exit(main())
