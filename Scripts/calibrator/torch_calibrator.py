#!/usr/bin/env python3
"""Float .sim → fixed .sim, in the modes of retraining and mixed precision."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Scripts/ takes the place of this folder, whose file names would shadow modules.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from sgs.cli.torch_calibrator_tool import main

    sys.exit(main())
