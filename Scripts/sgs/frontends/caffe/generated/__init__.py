"""Message classes of schema/caffe.proto; written by schema/generate.py."""

from .caffe_pb2 import *
