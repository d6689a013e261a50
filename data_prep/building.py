"""What every builder of this package shares: features, checks and the writing of examples."""

import abc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep.images import bad_images
from data_prep.listing import Counts, Item, Listing
from data_prep.progress import note, track
from data_prep.roots import find_root


class ReidBuilder(tfds.core.GeneratorBasedBuilder, abc.ABC):
    """A person re-identification set: splits train, query and gallery, stored as ArrayRecord.

    A data set's own class says where its images lie (`list_images`) and how many there should be
    (`expected`). Everything is checked before the first example is written, and TFDS gives the
    directory its final name after the last, so that a directory under that name is complete.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Nothing is downloaded: manual_dir is where the images are."

    page: str = ""
    """Where the images are requested from."""
    layout: str
    """What the root directory holds, in words."""
    expected: Counts | None = None
    """The published counts of the set."""

    def __init__(self, *, allow_partial: bool = False, **kwargs: Any) -> None:
        """Make the builder; `allow_partial` turns unexpected counts into a warning."""
        self.allow_partial = allow_partial
        super().__init__(file_format="array_record", **kwargs)

    @abc.abstractmethod
    def is_root(self, directory: Path) -> bool:
        """Whether a directory is the root of the set."""

    @abc.abstractmethod
    def list_images(self, root: Path) -> Listing:
        """List the images of the set below its root."""

    def find_source(self, source: Path | None) -> Path:
        """The root of the set at or near `source`.

        Raises:
          FileNotFoundError: it is not there. Says where was looked and how to get the images.
        """
        config = f" --config {self.builder_config.name}" if self.BUILDER_CONFIGS else ""
        help_text = (
            f"{f'Request the images from {self.page}, then run' if self.page else 'Run'} "
            f"`python -m data_prep.{self.name} --source DIR{config}`. "
            "`python -m experiments.synthetic_rmgl` runs at once, on synthetic images."
        )
        if source is None:
            raise FileNotFoundError(
                f"{self.name} is not prepared in {self.data_path}, and no source was given. "
                f"{help_text}"
            )
        return find_root(source, self.name, self.is_root, self.layout, help_text)

    def make_source(self, root: Path) -> None:
        """Make the images below `root`, for a set that can; others have them."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(type(self).__doc__ or "").strip(),
            homepage=self.page,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(doc="The original file, not re-encoded."),
                    "pid": tfds.features.Scalar(np.int64, doc="Raw identity."),
                    "camid": tfds.features.Scalar(np.int64, doc="From 0; -1: not known."),
                    "name": tfds.features.Text(doc="File name."),
                }
            ),
            # Index i of a split is its i-th image by name.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        listing = self.list_images(self.find_source(Path(dl_manager.manual_dir)))
        notes = listing.summary()
        for line in notes:
            note(f"{self.name}: {line}")
        differences = self._check(listing)
        self.info.metadata.update(differences=differences, notes=notes, digest=listing.digest())
        return {
            split: self._generate_examples(split, items) for split, items in listing.splits.items()
        }

    def _check(self, listing: Listing) -> list[str]:
        """Differences from the published counts, if allowed; raise for anything else wrong."""
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
            raise ValueError(f"{self.name} was not prepared{hint}: " + "; ".join(wrong))
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
                    "image": item.file.read_bytes(),
                    "pid": item.pid,
                    "camid": item.camid,
                    "name": item.name,
                },
            )

    # TFDS's own announcements of downloads, of which there are none.
    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...
