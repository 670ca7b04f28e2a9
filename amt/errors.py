"""The errors that a user sees: what is wrong, where, what was found, what was expected, what to do."""


class UserError(Exception):
    """Bad input. `launch.py` prints its text as one line and exits with status 2, without a traceback."""


class Stopped(Exception):
    """A run ended on request and can go on. `launch.py` prints its text as one line and exits with status 75."""
