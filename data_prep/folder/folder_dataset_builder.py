"""Builder of the user's own images."""

import re
from dataclasses import dataclass
from os import PathLike

import tensorflow_datasets as tfds

from data_prep.building import ReidBuilder
from data_prep.datasets import root_names
from data_prep.errors import InputError, MissingFileError
from data_prep.folder.own_images import LAYOUT, is_own_root, list_own
from data_prep.roots import find_root


@dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
    """A dataset of own images under a name."""

    digest: str | None = None
    """Digest of the file list, if a source was given: tells other sources with this name apart."""


class Builder(ReidBuilder):
    """Own images: in Market-1501's layout, or one folder for each identity."""

    named_by_user = True
    layout = LAYOUT
    is_root = staticmethod(is_own_root)
    list_images = staticmethod(list_own)

    @classmethod
    def choose_config(cls, variant: str, source: str | PathLike[str] | None) -> FolderConfig:
        """The configuration under the given name, or under a digest of the file list.

        Raises:
          MissingFileError: neither name nor source, or no images in it.
          InputError: a name that cannot name a directory.
        """
        digest = ""
        if source is not None:
            root = find_root(source, cls.name, root_names(), is_own_root, LAYOUT)
            digest = list_own(root).digest()
        elif not variant:
            raise MissingFileError(
                "folder: pass the directory of the images (source), or the name they were prepared "
                'under ("folder/NAME").'
            )
        name = variant or digest[:12]
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
            raise InputError(f"folder: a name has letters, digits, _ and - only, got {name!r}.")
        return FolderConfig(name=name, digest=digest or None)
