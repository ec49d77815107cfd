#!/usr/bin/env python3
"""Draws how the values of tensors are distributed."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Scripts/ takes the place of this folder, whose file names would shadow modules.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "Scripts")
    from sgs.cli.histogram import main

    sys.exit(main())
