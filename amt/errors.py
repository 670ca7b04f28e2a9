"""The one error that a user sees: what is wrong, where, what was found, what was expected, what to do."""


class UserError(Exception):
    """Bad input. `launch.py` prints its text as one line and exits with status 2, without a traceback."""
