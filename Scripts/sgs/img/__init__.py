"""The offline image: its parts, the file that holds it, and the machine that executes it."""

from sgs.img.image import (
    BatchMode,
    Command,
    Compute,
    Dma,
    Image,
    IoTensor,
    Kernel,
    Layer,
    Place,
    Program,
    Space,
    TensorRef,
)
from sgs.img.read import parse_image, read_image
from sgs.img.simulate import OfflineEngine
from sgs.img.write import image_bytes, write_image

__all__ = [
    "BatchMode",
    "Command",
    "Compute",
    "Dma",
    "Image",
    "IoTensor",
    "Kernel",
    "Layer",
    "OfflineEngine",
    "Place",
    "Program",
    "Space",
    "TensorRef",
    "image_bytes",
    "parse_image",
    "read_image",
    "write_image",
]
