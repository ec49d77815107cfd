"""TensorFlow and Keras → ONNX in memory.

`platform` has the rows and looks at the files; the rest runs in a process of its own (`child`): `read` and
`keras_files` make a frozen graph of any of the three kinds of files, `part` cuts out what is meant, at static `shapes`,
`convert` gives that to tf2onnx.
"""
