"""The one exception that means "the input is at fault, not the program"."""


class InputError(ValueError):
    """Bad input: a file, a list or an option that cannot be used.

    The message is one sentence that names the file (or option) and the remedy. The commands in
    `tools/` print it and end with status 2; a notebook sees an ordinary `ValueError`.
    """
