"""Builder of Market-1501."""

from pathlib import Path

from data_prep.building import ReidBuilder
from data_prep.listing import Count, Counts, Listing, is_market_root, list_market


class Builder(ReidBuilder):
    """Market-1501 (Zheng et al., ICCV 2015).

    The gallery keeps the distractors (identity 0) and leaves out the junk (identity -1).
    """

    PAGE = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
    LAYOUT = "bounding_box_train, query and bounding_box_test"

    def is_root(self, directory: Path) -> bool:  # noqa: D102
        return is_market_root(directory)

    def list_images(self, root: Path) -> Listing:  # noqa: D102
        return list_market(root)

    def counts(self) -> Counts:  # noqa: D102
        return Counts(
            {
                "train": Count(12_936, 751),
                "query": Count(3_368, 750),
                "gallery": Count(15_913, 751),
            },
            cameras=6,
        )
