"""Filters as expressions of Milvus, in which all texts are quoted."""

from collections.abc import Iterable

from rmgl_jax.gallery.entries import Filters

UNKNOWN_TIME = -1e300
"""Time has no null in older servers: an unknown time is a number that no time is."""
_KNOWN_TIME = "time > -1e299"
# These are the escapes that Milvus Lite and servers both know; other characters stand for
# themselves.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def expression(filters: Filters) -> str:
    """Converts filters to an expression of Milvus, in which all texts are quoted."""
    parts = []
    if filters.cameras:
        parts.append(f"camera in {quote_all(filters.cameras)}")
    if filters.not_cameras:
        parts.append(f"camera not in {quote_all(filters.not_cameras)}")
    if filters.after is not None or filters.before is not None:
        parts.append(_KNOWN_TIME)
    if filters.after is not None:
        parts.append(f"time >= {float(filters.after)!r}")
    if filters.before is not None:
        parts.append(f"time < {float(filters.before)!r}")
    if filters.labels:
        parts.append(f"array_contains_all(labels, {quote_all(filters.labels)})")
    return all_of(*parts)


def all_of(*conditions: str) -> str:
    """Joins conditions that must all hold; empty ones are left out."""
    return " and ".join(filter(None, conditions))


def quote(text: str) -> str:
    """Quotes a text."""
    return f'"{text.translate(_ESCAPES)}"'


def quote_all(texts: Iterable[str]) -> str:
    """Quotes texts as a list."""
    return f"[{', '.join(map(quote, texts))}]"
