"""What all readers of pickled checkpoints share: requests that are noted instead of obeyed."""
from __future__ import annotations


class Noted:
    """A call that a pickle asks for to build an array or a part of one, written down and not made.

    NumPy itself would obey a hostile file: `ndarray` makes an array of Python objects out of any bytes, and whoever
    then looks at one of them follows an address that the file chose.

    Args:
        what: the name of what would be called.
        arguments: of the call.

    Attributes:
        state: that the pickle gives to the result; None where it gives none.
    """

    def __init__(self, what: str, *arguments: object) -> None:
        self.what, self.arguments, self.state = what, arguments, None

    def __setstate__(self, state: object) -> None:
        self.state = state


class PlainDict(dict):
    """For `OrderedDict`, whose attributes (PyTorch's `_metadata`) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass
