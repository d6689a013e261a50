"""Expected errors: what a user can mend, told by the message alone.

Command lines print an `ExpectedError` in one line and exit with status 1; every other exception is
a bug and shows its traceback. Each class is also the built-in exception that a caller would expect.
"""

import errno
import os

# Conditions that the user can mend: full, read-only or forbidden storage, and too long names.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_STORAGE_ERRORS = _WRITE_ERRORS | {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


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


def describe(error: ExpectedError | OSError) -> str:
    """The sentence of an expected error, with the file if the system named one."""
    if isinstance(error, ExpectedError) or not isinstance(error.strerror, str):
        return str(error)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}."


def write_problem(error: Exception) -> str | None:
    """The reason if an error tells of full or read-only storage; None for other errors.

    The writer of ArrayRecord raises a RuntimeError that has the system's reason in its text.
    """
    if isinstance(error, OSError) and error.errno in _WRITE_ERRORS:
        return os.strerror(error.errno)
    reasons = sorted(map(os.strerror, _WRITE_ERRORS))
    return next((reason for reason in reasons if reason in str(error)), None)


def is_expected(error: BaseException) -> bool:
    """Tells errors that a command line prints in one line from bugs, which keep their traceback.

    Besides each `ExpectedError` these are the system's errors about full, read-only or forbidden
    storage, and about names that are too long for it.
    """
    if isinstance(error, ExpectedError):
        return True
    return isinstance(error, OSError) and error.errno in _STORAGE_ERRORS
