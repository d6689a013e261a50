"""JSON objects with a digest of their fields, so that a damaged file is noticed.

The digest is the field `file_digest`. Files of earlier versions have none and are not compared.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import write_text

DIGEST_FIELD = "file_digest"


def json_digest(tree: Any) -> str:
    """Returns a digest of a JSON tree that does not depend on white space and order of fields."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_text(tree: dict[str, Any]) -> str:
    """Returns a JSON object as text, with its digest.

    Raises:
        ValueError: a number is not finite.
    """
    content = {**tree, DIGEST_FIELD: json_digest(tree)}
    return json.dumps(content, indent=1, allow_nan=False)


def from_text(text: str) -> dict[str, Any]:
    """Inverts `to_text`; also reads an object without a digest.

    Raises:
        ValueError: the text is not a JSON object, or does not have its digest.
    """
    try:
        tree = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(tree, ensure_ascii=False).encode()  # Texts that UTF-8 does not have fail.
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(tree, dict):
        raise ValueError(f"expected an object, got {text[:80]!r}")
    if DIGEST_FIELD in tree:
        recorded = tree.pop(DIGEST_FIELD)
        found = json_digest(tree)
        if recorded != found:
            raise ValueError(
                f"the digest of its fields is {found}, not the recorded {str(recorded)[:80]}; if "
                "the file is removed, the command that wrote it writes it again"
            )
    return tree


def write(path: Path, tree: dict[str, Any]) -> None:
    """Writes a JSON object with its digest, completely or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, to_text(tree) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Reads a JSON object that `write` wrote, or that an earlier version wrote without a digest.

    Raises:
        InputError: the file is damaged.
        OSError: the file cannot be read.
    """
    try:
        return from_text(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}.") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")
