"""JSON of files that may be damaged or hostile."""

import json
from collections.abc import Callable
from typing import Any


def parse_json(text: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Parses JSON like `json.loads`, whose error for deep nesting is no ValueError.

    Args:
        text: the JSON.
        parse_constant: called with "NaN", "Infinity" and "-Infinity".

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=parse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
