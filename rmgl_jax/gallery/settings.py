"""Settings that all embeddings of a gallery have in common, kept with it as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from data_prep.errors import InputError
from data_prep.json_text import parse_json
from rmgl_jax.gallery.embedder import Embedder

FORMAT_VERSION = 1
"""Version of a gallery's layout that is written, and the only one that is read."""
INDEXES = ("exact", "hnsw")
"""Kinds of index."""


@dataclass(frozen=True)
class Settings:
    """Settings of a gallery."""

    digest: str
    """`Embedder.digest`: SHA-256 of the weights, and of the projection if `dim` is given."""
    image_size: tuple[int, int]
    """Height and width of the network's input."""
    flip: bool
    """Each embedding is averaged with that of the mirrored image."""
    dim: int | None
    """Width of projected embeddings; None is the model's full width."""
    width: int
    """E, the width of the embeddings."""
    index: str
    """One of `INDEXES`."""

    @classmethod
    def of(cls, embedder: Embedder, index: str | None) -> "Settings":
        """Makes the settings of a new gallery.

        Raises:
            InputError: there is no such index.
        """
        if index is not None and index not in INDEXES:
            raise InputError(f"The index must be {' or '.join(INDEXES)}, got {index!r}.")
        return cls(
            digest=embedder.digest,
            image_size=embedder.model.config.model.image_size,
            flip=embedder.flip,
            dim=embedder.dim,
            width=embedder.width,
            index=index or INDEXES[0],
        )

    def check(self, place: str, requested: Mapping[str, Any]) -> None:
        """Checks options of a command against the gallery; None agrees with everything.

        Raises:
            InputError: an option is not as in the gallery.
        """
        for name, value in requested.items():
            if value is not None and value != (made := getattr(self, name)):
                raise InputError(f"The gallery {place} was made with {name} {made}, not {value}.")

    def check_embedder(self, place: str, embedder: Embedder) -> None:
        """Checks that embeddings can be compared with those of the gallery.

        Raises:
            InputError: they are of another model.
        """
        if embedder.digest != self.digest:
            raise InputError(
                f"The gallery {place} holds embeddings of the model {self.digest[:12]}, which "
                f"cannot be compared with those of the model {embedder.digest[:12]}."
            )

    def to_json(self) -> str:
        """Returns the settings as JSON."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Settings":
        """Reads settings written by `to_json`.

        Args:
            text: the JSON.
            source: name of the text in error messages.

        Raises:
            InputError: the text has other content, or is of another version.
        """
        try:
            values = parse_json(text)
            version = values.pop("format_version")
            known = version == FORMAT_VERSION
            if known:
                height, width = values["image_size"]
                settings = cls(**values | {"image_size": (height, width)})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source} is damaged: it has no settings of a gallery.") from error
        if not known:
            raise InputError(
                f"{source} has format version {version}; this version of rmgl_jax reads "
                f"{FORMAT_VERSION}."
            )
        for field in fields(cls):
            _check_field(source, field.name, getattr(settings, field.name))
        return settings


_TYPES: dict[str, tuple[type, ...]] = {
    "digest": (str,),
    "image_size": (tuple,),
    "flip": (bool,),
    "dim": (int, type(None)),
    "width": (int,),
    "index": (str,),
}


def _check_field(source: str, name: str, value: Any) -> None:
    wrong = type(value) not in _TYPES[name] or (name == "index" and value not in INDEXES)
    if wrong or (name == "width" and value < 1):
        raise InputError(f"{source} is damaged: {name} is {value!r}.")
