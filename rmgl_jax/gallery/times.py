"""Times of crops: seconds since 1970-01-01 UTC, parsed from text and checked."""

import re
from datetime import UTC, datetime
from numbers import Real

from data_prep.errors import InputError

_DATE = re.compile(r"\d{8}")  # ISO 8601 without hyphens
_SECONDS = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
# Years, months, and dates with a time, which are not ISO 8601; seconds of 12 digits are after 5138.
_LIKE_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])?|\d{12}|\d{14}", re.ASCII)
_FIRST, _END = -62_135_596_800, 253_402_300_800  # seconds of the years 1 and 10000


def parse_time(text: str) -> float | None:
    """Parses a time: seconds since 1970, or ISO 8601, which is UTC unless it has an offset.

    Eight digits are a date, such as 20260501.

    Raises:
        InputError: the text looks like another date in digits, or the year is not one of 1 to 9999.
        ValueError: the text is no time.
    """
    if not text:
        return None
    if _LIKE_DATE.fullmatch(text):
        raise InputError(f"{text} looks like a date; write a time as 2026-05-01T08:00.")
    if _SECONDS.fullmatch(text) and not _DATE.fullmatch(text):
        seconds = float(text)
        check_time(seconds)
        return seconds
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def check_time(seconds: float) -> None:
    """Checks a time in seconds since 1970.

    Raises:
        InputError: not a number, or not in the years 1 to 9999.
    """
    if not isinstance(seconds, Real):
        raise InputError(
            f"A time must be in seconds since 1970 (`timestamp()` of a datetime), got {seconds!r}."
        )
    if not _FIRST <= seconds < _END:
        raise InputError(
            f"A time must be in the years 1 to 9999, got {seconds:.16g} seconds since 1970 "
            "(milliseconds are to be divided by 1,000)."
        )
