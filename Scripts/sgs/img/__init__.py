"""The offline image: its parts, the file that holds it, and the machine that executes it."""

from sgs.img.image import BatchMode, Command, Image, IoTensor, Placement, Program, Space, TensorRef
from sgs.img.read import parse_image, read_image
from sgs.img.simulate import OfflineEngine
from sgs.img.write import image_bytes, write_image

__all__ = [
    "BatchMode",
    "Command",
    "Image",
    "IoTensor",
    "OfflineEngine",
    "Placement",
    "Program",
    "Space",
    "TensorRef",
    "image_bytes",
    "parse_image",
    "read_image",
    "write_image",
]
