"""A gallery in memory whose embedding is the mean color, for tests of the search page."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from data_prep.errors import InputError
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.entries import Entry, Filters, Match
from rmgl_jax.gallery.identify import identify

SIZE = (64, 32)
NO_FILTERS = Filters()
SETTINGS = SimpleNamespace(digest="a digest", flip=True)


@dataclass(frozen=True)
class FixedCalibration:
    """The same threshold at every false positive rate."""

    value: float

    def threshold(self, fpr: float) -> float:
        """The threshold."""
        return self.value

    def applies_to(self, digest: str, flip: bool) -> bool:
        """True for the embedding of the gallery."""
        return (digest, flip) == (SETTINGS.digest, SETTINGS.flip)


def stand_in_model(threshold: float | None = None) -> Any:
    """A model with the attributes that the page reads."""
    return SimpleNamespace(
        config=SimpleNamespace(model=SimpleNamespace(image_size=SIZE)),
        trained_on="synthetic/tiny",
        calibration=None if threshold is None else FixedCalibration(threshold),
    )


@dataclass
class ColorGallery:
    """The methods of `Gallery` that the page calls, on a list of entries."""

    stored: list[Entry]
    model: Any = field(default_factory=stand_in_model)
    settings: Any = field(default_factory=lambda: SETTINGS)
    has_model: bool = True
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Options of every search."""

    def __post_init__(self) -> None:
        self.embeddings = np.stack([color(Image.open(entry.path)) for entry in self.stored])

    def search(
        self,
        query: Any,
        top: int = 10,
        filters: Filters = NO_FILTERS,
        *,
        rerank: bool = False,
        expand: bool = False,
    ) -> list[Match]:
        """Entries by falling similarity of their mean colors; re-ranking reverses them."""
        self.calls.append({"top": top, "filters": filters, "rerank": rerank, "expand": expand})
        if isinstance(query, str):
            (row,) = [i for i, entry in enumerate(self.stored) if entry.id == query]
            vector = self.embeddings[row]
        else:
            vector = color(query)
        scores = self.embeddings @ vector
        order = [i for i in np.argsort(-scores, kind="stable") if passes(self.stored[i], filters)]
        matches = [Match(self.stored[i], float(scores[i])) for i in order[:top]]
        return matches[::-1] if rerank else matches

    def entries(
        self, filters: Filters = NO_FILTERS, offset: int = 0, limit: int = 50
    ) -> list[Entry]:
        """A page of the entries."""
        found = [entry for entry in self.stored if passes(entry, filters)]
        return found[offset : offset + limit]

    def entry(self, id: str) -> Entry:
        """The entry of an id."""
        for entry in self.stored:
            if entry.id == id:
                return entry
        raise InputError(f"/secret/gallery has no image {id}.")

    def cameras(self) -> list[str]:
        """All cameras."""
        return sorted({entry.camera for entry in self.stored} - {""})

    def __len__(self) -> int:
        return len(self.stored)


def color(image: Image.Image) -> np.ndarray:
    """The mean color relative to gray, of unit length."""
    mean = np.asarray(image.convert("RGB"), np.float64).mean((0, 1)) - 127.5
    return mean / np.linalg.norm(mean)


def passes(entry: Entry, filters: Filters) -> bool:
    """Tells if an entry meets all conditions."""
    time = entry.time
    return (
        (not filters.cameras or entry.camera in filters.cameras)
        and entry.camera not in filters.not_cameras
        and (filters.after is None or (time is not None and time >= filters.after))
        and (filters.before is None or (time is not None and time < filters.before))
        and {*filters.labels} <= {*entry.labels}
    )


def color_entry(directory: Path, rgb: tuple[int, int, int], name: str, **known: Any) -> Entry:
    """Writes an image of one color and describes it."""
    path = directory / name
    Image.new("RGB", (SIZE[1], SIZE[0]), rgb).save(path)
    entry = identify(Crop(path))
    assert isinstance(entry, Entry)
    return replace(entry, **known)
