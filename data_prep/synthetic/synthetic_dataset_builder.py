"""Builder of the synthetic benchmark."""

from pathlib import Path

import tensorflow_datasets as tfds

from data_prep.building import ReidBuilder
from data_prep.listing import Count, Counts, is_market_root, list_market
from data_prep.progress import note
from data_prep.synthetic.layout import CAMERA_COUNT, PRESETS
from data_prep.synthetic.render import render


class Builder(ReidBuilder):
    """Rendered pedestrians in Market-1501's layout; a configuration for each preset."""

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"{preset.total:,} images")
        for name, preset in PRESETS.items()
    ]
    layout = "bounding_box_train, query and bounding_box_test"
    is_root = staticmethod(is_market_root)
    list_images = staticmethod(list_market)

    def find_source(self, source: Path | None) -> Path:
        """As for other sets; without a source, the place below the data directory to render to."""
        if source is not None:
            return super().find_source(source)
        preset = self.builder_config.name
        # The version is in the path, so that another renderer's images are not taken for ours.
        return Path(self.data_dir_root) / "synthetic_images" / f"{preset}-{self.version}"

    def make_source(self, root: Path) -> None:
        """Render the preset, unless it is there."""
        if not root.is_dir():
            note(f"synthetic: rendering {self.builder_config.name} to {root}")
            render(root, self.builder_config.name)

    @property
    def expected(self) -> Counts:
        """What the preset renders, without the junk."""
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
