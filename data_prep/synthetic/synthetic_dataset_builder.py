"""Builder of the synthetic benchmark."""

from os import PathLike
from pathlib import Path

import tensorflow_datasets as tfds

from data_prep.building import ReidBuilder
from data_prep.listing import Count, Counts, Listing, is_market_root, list_market
from data_prep.progress import note
from data_prep.synthetic.layout import CAMERA_COUNT, PRESETS
from data_prep.synthetic.render import render


class Builder(ReidBuilder):
    """Rendered pedestrians in Market-1501's layout; a variant for each preset."""

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"{preset.total:,} images")
        for name, preset in PRESETS.items()
    ]
    needs_source = False
    layout = "bounding_box_train, query and bounding_box_test"
    is_root = staticmethod(is_market_root)
    list_images = staticmethod(list_market)

    def find_source(self, source: str | PathLike[str] | None) -> Path:
        """As for other datasets; without a source, the directory to render to."""
        if source is not None and Path(source) != self._rendered():
            return super().find_source(source)
        return self._rendered()

    def source_images(self, dl_manager: tfds.download.DownloadManager) -> Listing:
        """Lists the images of the directory that TFDS was given, or renders them."""
        try:
            root = self.find_source(dl_manager.manual_dir)
        except AssertionError:  # TFDS's way to say that there is no such directory
            root = self._rendered()
            if not root.is_dir():
                note(f"synthetic: rendering {self.builder_config.name} to {root}")
                render(root, self.builder_config.name)
        return self.list_root(root)

    def _rendered(self) -> Path:
        # With the version in the path, images of an older renderer are not used.
        name = f"{self.builder_config.name}-{self.version}"
        return Path(self.data_dir_root) / "synthetic_images" / name

    @property
    def expected(self) -> Counts:
        """The numbers that the preset renders, without the junk."""
        preset = PRESETS[self.builder_config.name]
        return Counts(
            {
                "train": Count(preset.train_images, preset.train_ids),
                "query": Count(preset.query_images, preset.test_ids),
                "gallery": Count(
                    preset.gallery_images + preset.distractors,
                    preset.test_ids + (preset.distractors > 0),
                ),
            },
            cameras=CAMERA_COUNT,
        )
