"""TFLite: a file's records (`sim.container`) → a model for the importer, whose nodes are the file's own operators.

model.py makes it, of records that dilation.py, sparse.py and real.py have brought into a plainer form; layout.py tells
what its author holds channels first, rows.py what the operators mean.
"""
