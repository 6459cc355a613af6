"""The one error type that users see: a single line that says what was given, what was needed, what to do."""


class SteerlensError(ValueError):
    """Bad input, in one line. The command line prints it and exits with code 2; nothing was changed or written."""
