#!/usr/bin/env python3
"""Checks an input_config.ini against a network and its preprocess scripts, or writes a first one."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Scripts/ takes the place of this folder, whose file names would shadow modules.
    sys.path[0] = str(Path(__file__).resolve().parents[1] / "Scripts")
    from sgs.cli.check_input_config import main

    sys.exit(main())
