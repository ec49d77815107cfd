#!/usr/bin/env python3
"""Fixed .sim → its quantisation parameters as JSON or Pickle, for --quant_file of the other programs."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Scripts/ takes the place of this folder.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from sgs.cli.quant_param_tool import main

    sys.exit(main())
