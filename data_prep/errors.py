"""Expected errors: what a user can mend, told by the message alone.

Command lines print an `ExpectedError` in one line and exit with status 1; every other exception is
a bug and shows its traceback. Each class is also the built-in exception that a caller would expect.
"""


class ExpectedError(Exception):
    """Base of the errors whose message is all that the user needs."""


class InputError(ExpectedError, ValueError):
    """A value, option or file has the wrong content. Says the value and what was expected."""


class MissingFileError(ExpectedError, FileNotFoundError):
    """A file or directory that the user named, or that an earlier command makes, is not there."""


class MissingPackageError(ExpectedError, ImportError):
    """An optional package is not installed. Says which extra installs it."""


class WriteError(ExpectedError, OSError):
    """A file could not be written. Says which one and the system's reason."""
