"""Builder of CUHK03-NP, from image folders or from the original MATLAB files."""

from pathlib import Path

import tensorflow_datasets as tfds

from data_prep.building import ReidBuilder
from data_prep.cuhk03_np.matlab import find_matlab_files, list_matlab
from data_prep.errors import MissingFileError
from data_prep.listing import Count, Counts, Listing, is_market_root, list_market

VARIANTS = ("labeled", "detected")


class Builder(ReidBuilder):
    """CUHK03 (Li et al., CVPR 2014) under the protocol of Zhong et al. (CVPR 2017).

    Variants: `labeled` has boxes drawn by hand, `detected` those of a detector. Each is prepared
    without the files of the other.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="labeled", description="boxes drawn by hand"),
        tfds.core.BuilderConfig(name="detected", description="boxes of a detector"),
    ]
    page = (
        "https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html (and the protocol from "
        "https://github.com/zhunzhong07/person-re-ranking)"
    )

    root_names = ("CUHK03-NP", "CUHK03", "cuhk03_release", "cuhk03_new", "CUHK-03")

    @property
    def layout(self) -> str:
        """Either of the two layouts, in words."""
        variant = self.builder_config.name
        return (
            f"{variant}/bounding_box_train, {variant}/query and {variant}/bounding_box_test, or "
            f"cuhk-03.mat and cuhk03_new_protocol_config_{variant}.mat"
        )

    def is_root(self, directory: Path) -> bool:
        """Tells whether a directory has the variant, in either layout."""
        variant = self.builder_config.name
        return (
            _market_root(directory, variant) is not None
            or find_matlab_files(directory, variant) is not None
        )

    def list_images(self, root: Path) -> Listing:
        """Lists the images of the variant, from folders if they are there.

        Raises:
          MissingFileError: the root has neither folders nor MATLAB files.
        """
        variant = self.builder_config.name
        folders = _market_root(root, variant)
        if folders is not None:
            return list_market(folders)
        files = find_matlab_files(root, variant)
        if files is None:
            raise MissingFileError(f"{root} does not contain {self.layout}.")
        return list_matlab(*files, variant)

    @property
    def expected(self) -> Counts:
        """Published counts of the variant."""
        train, gallery = (7_368, 5_328) if self.builder_config.name == "labeled" else (7_365, 5_332)
        return Counts(
            {
                "train": Count(train, 767),
                "query": Count(1_400, 700),
                "gallery": Count(gallery, 700),
            },
            cameras=2,
        )


def _market_root(directory: Path, variant: str) -> Path | None:
    """The directory of the variant in Market-1501's layout: below `directory`, or itself."""
    if is_market_root(directory / variant):
        return directory / variant
    # A directory named as the other variant is not taken for this one.
    other = next(name for name in VARIANTS if name != variant)
    if is_market_root(directory) and other not in directory.name.lower():
        return directory
    return None
