"""Builder of the user's own images."""

import re
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds

from data_prep.building import ReidBuilder
from data_prep.folder.own_images import LAYOUT, is_own_root, list_own
from data_prep.roots import find_root


@dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """A set of own images under a name."""

    digest: str | None = None
    """Of the source's file list, if a source was given: another source under this name shows."""


class Builder(ReidBuilder):
    """Own images: in Market-1501's layout, or one folder for each identity."""

    layout = LAYOUT
    is_root = staticmethod(is_own_root)
    list_images = staticmethod(list_own)


def make_config(name: str, source: Path | None) -> FolderConfig:
    """The configuration own images are kept under: the name given, or a digest of the file list.

    Raises:
      FileNotFoundError: neither name nor source, or no images there.
      ValueError: not a name.
    """
    if source is None:
        if not name:
            raise FileNotFoundError(
                "folder: pass the directory of the images (source), or the name they were prepared "
                'under ("folder/NAME").'
            )
        digest = None
    else:
        digest = list_own(find_root(source, "folder", is_own_root, LAYOUT)).digest()
    name = name or digest[:12]
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise ValueError(f"folder: a name has letters, digits, _ and - only, got {name!r}.")
    return FolderConfig(name=name, digest=digest)
