"""Flatbuffer classes of schema/sim.fbs; written by schema/generate.py."""

from .sim_generated import *
