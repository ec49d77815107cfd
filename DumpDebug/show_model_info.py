#!/usr/bin/env python3
"""Prints what a model file is and holds, and everything that ConvertTool would refuse of it."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Scripts/ takes the place of this folder, whose file names would shadow modules.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "Scripts")
    from sgs.cli.show_model_info import main

    sys.exit(main())
