"""Float graphs in torch, for the modes of torch_calibrator that retrain. Of the library, only this package and the
platform pytorch import torch.
"""
