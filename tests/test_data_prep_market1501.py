import pytest

from data_prep.dukemtmc_reid.dukemtmc_reid_dataset_builder import Builder as Duke
from data_prep.listing import list_market
from data_prep.market1501.market1501_dataset_builder import Builder as Market
from tests.tiny_trees import (
    market_labels,
    prepare_partial,
    read_labels,
    write_images,
    write_market,
)


# A parent directory whose name reads like a label: only base names may be parsed.
@pytest.mark.parametrize("parents", ["12_c3/Market-1501-v15.09.15", "0009_c5s1_000001_00"])
@pytest.mark.parametrize("dataset", ["market1501", "dukemtmc_reid"])
def test_market_layout_gives_every_pid_and_camid(tmp_path, parents, dataset, capsys):
    source = write_market(tmp_path / parents)
    builder = prepare_partial(dataset, source, tmp_path / "tfds")
    assert read_labels(builder) == market_labels()
    said = capsys.readouterr().err
    assert "dropped 2 junk images (identity -1)" in said
    assert "left out 5 that are not images" in said
    assert "Thumbs.db" in said


def test_dukemtmc_reads_its_own_names(tmp_path):
    names = {"0001_c2_f0046182.jpg": (1, 1), "7139_c8_f0230000.jpg": (7139, 7)}
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        write_images(tmp_path / "DukeMTMC-reID" / folder, names)
    builder = prepare_partial("dukemtmc_reid", tmp_path, tmp_path / "tfds")
    assert read_labels(builder) == {split: names for split in ("train", "query", "gallery")}


def test_list_market_reports_files_that_cannot_belong(tmp_path):
    source = write_market(tmp_path)
    write_images(source / "bounding_box_train", ["noname.jpg", "-1_c1s1_000001_00.jpg"])
    write_images(source / "query", ["0001_c0s1_000001_00.jpg", f"{2**31}_c1s1_000001_00.jpg"])
    problems = "\n".join(list_market(source).problems)
    assert "noname.jpg: no identity and camera in its name" in problems
    assert "-1_c1s1_000001_00.jpg: identity -1 in the train split" in problems
    assert "0001_c0s1_000001_00.jpg: camera 0, the first is 1" in problems
    assert f"{2**31}_c1s1_000001_00.jpg: an identity or camera of more than 32 bits" in problems
    assert problems.count("\n") == 3


@pytest.mark.parametrize(
    ("builder", "images", "identities", "cameras"),
    [
        (Market, (12_936, 3_368, 15_913), (751, 750, 751), 6),
        (Duke, (16_522, 2_228, 17_661), (702, 702, 1_110), 8),
    ],
)
def test_market_and_duke_published_counts(builder, images, identities, cameras):
    counts = builder.expected
    assert tuple(count.images for count in counts.splits.values()) == images
    assert tuple(count.identities for count in counts.splits.values()) == identities
    assert counts.cameras == cameras
    assert list(counts.splits) == ["train", "query", "gallery"]
