"""The command lines: argparse, progress bars, exit codes. Only this package prints or exits; no logic lives here."""

import sys
from importlib.util import find_spec

_missing = [name for name in ("numpy", "onnx", "onnxruntime", "cv2", "flatbuffers", "tqdm") if find_spec(name) is None]
if _missing:
    remedy = "run `make demo` once, then `source .venv/bin/activate`; or `pip install -e .` in the top folder"
    print(f"error: Python packages are missing: {', '.join(_missing)} ({remedy})", file=sys.stderr)
    sys.exit(2)
