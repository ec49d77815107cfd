"""Caffe: a prototxt, which says what the network is, and a caffemodel, which has its weights → ONNX in memory.

prototxt.py reads text of any message, network.py what of it is the network that runs, weights.py the other file;
translate.py walks over the layers, and `layers` has a row for each type of them, by what context.py shows of a layer.
"""
