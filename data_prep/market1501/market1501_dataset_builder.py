"""Builder of Market-1501."""

from data_prep.building import ReidBuilder
from data_prep.listing import Count, Counts, is_market_root, list_market


class Builder(ReidBuilder):
    """Market-1501 (Zheng et al., ICCV 2015).

    The gallery keeps the distractors (identity 0) and leaves out the junk (identity -1).
    """

    page = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
    root_names = ("Market-1501-v15.09.15", "Market-1501", "Market1501", "Market")
    layout = "bounding_box_train, query and bounding_box_test"
    expected = Counts(
        {
            "train": Count(12_936, 751),
            "query": Count(3_368, 750),
            "gallery": Count(15_913, 751),
        },
        cameras=6,
    )
    is_root = staticmethod(is_market_root)
    list_images = staticmethod(list_market)
