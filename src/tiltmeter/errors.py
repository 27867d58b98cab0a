"""The errors that a user can cause. The command line prints them in one line, without a traceback."""


class InputError(ValueError):
    """The input cannot be used: the message says what was expected, what came, and where (file, row, module)."""


class NothingMeasuredError(RuntimeError):
    """Everything was read, but no figure could be measured from it."""
