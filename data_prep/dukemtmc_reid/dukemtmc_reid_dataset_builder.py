"""Builder of DukeMTMC-reID."""

from data_prep.building import ReidBuilder
from data_prep.listing import Count, Counts, is_market_root, list_market


class Builder(ReidBuilder):
    """DukeMTMC-reID (Zheng et al., ICCV 2017).

    Its owners withdrew it in 2019, so that it cannot be requested: only existing copies are read.
    """

    root_names = ("DukeMTMC-reID", "DukeMTMC", "Duke")
    layout = "bounding_box_train, query and bounding_box_test"
    expected = Counts(
        {
            "train": Count(16_522, 702),
            "query": Count(2_228, 702),
            "gallery": Count(17_661, 1_110),
        },
        cameras=8,
    )
    is_root = staticmethod(is_market_root)
    list_images = staticmethod(list_market)
