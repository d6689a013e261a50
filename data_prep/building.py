"""The base class of the builders: features, checks and the writing of examples."""

import abc
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_prep.datasets import root_names
from data_prep.errors import InputError, MissingFileError
from data_prep.images import bad_images, read_encoded
from data_prep.listing import Counts, Item, Listing, outside_files
from data_prep.prepared import features
from data_prep.progress import note, track
from data_prep.roots import find_root


class ReidBuilder(tfds.core.GeneratorBasedBuilder, abc.ABC):
    """A person re-identification dataset: splits train, query and gallery, stored as ArrayRecord.

    A subclass finds the images (`is_root`, `list_images`) and gives their published number
    (`expected`). Everything is checked before the first example is written. TFDS renames the
    directory after the last one, so that a directory with the final name is complete.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Nothing is downloaded: request the images from the owners of the dataset, and pass their "
        "directory as manual_dir."
    )

    page: str = ""
    """Web page to request the images from."""
    root_names: tuple[str, ...] = ()
    """Directory names of published copies, in any case and punctuation; none if unpublished."""
    same_test_images: bool = False
    """Set if all variants have the same query and gallery images."""
    named_by_user: bool = False
    """Set if users name their variants themselves, as in "folder/NAME"."""
    needs_source: bool = True
    """Cleared if the builder makes the images itself."""

    def __init__(
        self, *, allow_partial: bool = False, file_format: Any = None, **kwargs: Any
    ) -> None:
        """Makes the builder.

        Args:
          allow_partial: turn unexpected counts into a warning.
          file_format: of the records, for instance "tfrecord" for tf.data. None is that of the
            prepared dataset, or ArrayRecord, which needs no TensorFlow.
          **kwargs: see `tfds.core.DatasetBuilder`.
        """
        self.allow_partial = allow_partial
        super().__init__(file_format=file_format, **kwargs)
        if file_format is None and not self.is_prepared():
            self.info.set_file_format("array_record", override=True)

    @property
    @abc.abstractmethod
    def layout(self) -> str:
        """Description of the root directory's content, in words."""

    @property
    def expected(self) -> Counts | None:
        """Published counts; None if there are none."""
        return None

    @abc.abstractmethod
    def is_root(self, directory: Path) -> bool:
        """Tells whether a directory is the root of the dataset."""

    @abc.abstractmethod
    def list_images(self, root: Path) -> Listing:
        """Lists the images of the dataset below its root."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names that `data_prep.prepare_dataset` takes: one for each variant."""
        if cls.named_by_user:
            return ()
        return tuple(f"{cls.name}/{variant}" for variant in cls.builder_configs) or (cls.name,)

    @classmethod
    def choose_config(cls, variant: str, source: str | PathLike[str] | None) -> Any:
        """The builder configuration of a variant ("" is none), from a source directory if given.

        Raises:
          InputError: there is no such variant.
        """
        name = f"{cls.name}/{variant}" if variant else cls.name
        if name not in cls.names():
            raise InputError(f"Unknown dataset {name!r}; there is {', '.join(cls.names())}.")
        return variant or None

    def is_prepared(self) -> bool:
        """Tells whether the dataset is prepared in its directory."""
        # TFDS logs a warning where there is nothing at all.
        return self.data_path.exists() and super().is_prepared()

    def find_source(self, source: str | PathLike[str] | None) -> Path:
        """Finds the root of the dataset at or near `source`.

        Raises:
          MissingFileError: not there. Says where it was searched and how to get the images.
          InputError: several directories could be the root.
        """
        variant = self.builder_config.name if self.builder_config else ""
        option = "--name" if self.named_by_user else "--config" if self.BUILDER_CONFIGS else ""
        config = f" {option} {variant}" if option else ""
        help_text = (
            f"{f'Request the images from {self.page}, then run' if self.page else 'Run'} "
            f"`python -m data_prep.{self.name} --source DIR{config}`. "
            "`python -m experiments.synthetic_rmgl` needs no images: it renders its own."
        )
        if source is None:
            raise MissingFileError(
                f"{self.name} is not prepared in {self.data_path}, and no source was given. "
                f"{help_text}"
            )
        return find_root(source, self.name, root_names(), self.is_root, self.layout, help_text)

    def source_images(self, dl_manager: tfds.download.DownloadManager) -> Listing:
        """Lists the images of the directory that TFDS was given (`manual_dir`)."""
        return self.list_root(self.find_source(dl_manager.manual_dir))

    def list_root(self, root: Path) -> Listing:
        """Lists the images below a root; those that links lead out of it are problems."""
        listing = self.list_images(root)
        listing.problems += outside_files(root, listing)
        return listing

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(type(self).__doc__ or "").strip(),
            homepage=self.page,
            features=features(),
            # Index i of a split is its i-th image by name.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        listing = self.source_images(dl_manager)
        notes = listing.summary()
        for line in notes:
            note(f"{self.name}: {line}")
        differences = self._check(listing)
        self.info.metadata.update(differences=differences, notes=notes, digest=listing.digest())
        return {
            split: self._generate_examples(split, items) for split, items in listing.splits.items()
        }

    def _check(self, listing: Listing) -> list[str]:
        """Returns the differences from the published counts if allowed; raises for other errors."""
        differences = self.expected.differences(listing.splits) if self.expected else []
        empty = [f"{split} has no images" for split, items in listing.splits.items() if not items]
        wrong = empty + ([] if self.allow_partial else differences)
        items = [item for items in listing.splits.values() for item in items]
        # Python marks bytes that are not UTF-8 by surrogates; they would end the writing.
        problems = listing.problems + [
            f"{item.file!r}: its name is not UTF-8"
            for item in items
            if any("\ud800" <= character <= "\udfff" for character in item.name)
        ]
        if not wrong:
            bad = bad_images([item.file for item in items], f"{self.name}: checking images")
            problems += [f"{path}: {problem}" for path, problem in bad]
        if problems:
            wrong.append(f"{len(problems)} bad files:\n  " + "\n  ".join(problems))
        if wrong:
            hint = " (allow_partial accepts other counts)" if differences else ""
            raise InputError(f"{self.name} was not prepared{hint}: " + "; ".join(wrong))
        if differences:
            warnings.warn(f"{self.name} is partial: {'; '.join(differences)}", stacklevel=2)
        return differences

    def _generate_examples(
        self, split: str, items: list[Item]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        written = track(items, [1] * len(items), f"{self.name}: writing {split}")
        for index, item in enumerate(written):
            yield (
                index,
                {
                    "image": read_encoded(item.file),
                    "pid": item.pid,
                    "camid": item.camid,
                    "name": item.name,
                },
            )

    # TFDS's own announcements of downloads, of which there are none.
    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...
