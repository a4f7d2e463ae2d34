"""The one room that chooses the device: `auto` takes a GPU only after it has computed known answers right.

Call `use("auto")` before anything is computed, in a command or in the first cell of a notebook, and `ensure()` wherever
a result would otherwise be believed. Importing this needs no Paddle.
"""
from cxr.device.choice import Choice, apply, chosen, ensure, use

__all__ = ["Choice", "apply", "chosen", "ensure", "use"]
