"""Flatbuffer classes of schema/img.fbs; written by schema/generate.py."""

from .img_generated import *
