"""Any checkpoint in and out, safely: Paddle's and PyTorch's files, and downloads."""
from cxr.weights.paddle_files import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]
