"""The pictures of docs/TOUR.md, of what its commands leave in build/shapes: run these first, then `make docs-pictures`.

`report.png` is made by Chromium, which has to be on the path.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
PICTURES = ("shapes_005", "shapes_012", "shapes_029")
STAGES = {f"{stage} .sim": f"{stage}_drawn/detection_onnx_yolo_shapes_{stage}.sim" for stage in ("float", "fixed")}
SIDE, MARGIN = 300, 8


def detections(made: Path, target: Path) -> None:
    """A row of drawn pictures for each stage, with its name."""
    rows = []
    for stage, prefix in STAGES.items():
        files = [f"{made / prefix}_{name}.png.jpg" for name in PICTURES]
        drawn = [cv2.resize(cv2.imread(file), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for file in files]
        framed = [cv2.copyMakeBorder(one, *[MARGIN] * 4, cv2.BORDER_CONSTANT, value=[255] * 3) for one in drawn]
        row = np.concatenate(framed, axis=1)
        title = np.full((34, row.shape[1], 3), 255, np.uint8)
        cv2.putText(title, stage, (MARGIN, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (40, 35, 31), 2, cv2.LINE_AA)
        rows += [title, row]
    cv2.imwrite(str(target), np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def screenshot(page: Path, target: Path) -> None:
    """The top of a page, in light colours."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"]
        options += [f"--user-data-dir={profile}", f"--screenshot={target}", "--window-size=1120,800"]
        subprocess.run(["chromium", *options, page.resolve().as_uri()], check=True, stderr=subprocess.DEVNULL)


def main(made: Path, folder: Path) -> None:
    detections(made, folder / "detections.jpg")
    shutil.copyfile(made / "histogram.svg", folder / "histogram.svg")
    if shutil.which("chromium"):
        screenshot(made / "compare.html", folder / "report.png")
    else:
        print("report.png stays as it is: there is no chromium", file=sys.stderr)


if __name__ == "__main__":
    main(HERE.parents[1] / "build/shapes", HERE)
