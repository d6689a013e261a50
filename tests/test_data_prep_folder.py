import os

import pytest

import data_prep
from data_prep.folder.own_images import list_own
from tests.tiny_trees import image_bytes, market_labels, read_labels, write_images, write_market


def prepare(source, tmp_path, name="folder/mine"):
    return data_prep.prepare_dataset(name, source, tmp_path / "tfds")


def labels(listing):
    return {
        split: {item.name: (item.pid, item.camid) for item in items}
        for split, items in listing.splits.items()
    }


@pytest.mark.parametrize("folders", [("train", "gallery"), ("bounding_box_train", "gallery")])
def test_list_own_reads_markets_layout_under_either_folder_name(tmp_path, folders):
    source = write_market(tmp_path / "own" / "12_c3")
    for name, folder in zip(("bounding_box_train", "bounding_box_test"), folders, strict=True):
        (source / name).rename(source / folder)
    found = read_labels(prepare(source, tmp_path))
    # Cameras of own images are as written: c1 is 1.
    assert found == {
        split: {name: (pid, camid + 1) for name, (pid, camid) in names.items()}
        for split, names in market_labels().items()
    }


def test_list_own_without_camera_ids(tmp_path, capsys):
    source = tmp_path / "own"
    write_images(source / "train", ["0001_1.jpg", "0001_2.jpg", "7.png"])
    write_images(source / "query", ["12.jpg"])
    write_images(source / "gallery", ["12_1.jpg", "-1_1.jpg"])
    assert read_labels(prepare(source, tmp_path)) == {
        "train": {"0001_1.jpg": (1, -1), "0001_2.jpg": (1, -1), "7.png": (7, -1)},
        "query": {"12.jpg": (12, -1)},
        "gallery": {"12_1.jpg": (12, -1)},
    }
    assert "no camera ids" in capsys.readouterr().err


def test_list_own_reads_a_folder_for_each_identity(tmp_path, capsys):
    source = tmp_path / "own"
    write_images(source / "train", ["notes.txt", ".cache/1.jpg"])
    write_images(source / "train", ["0004/c1_a.jpg", "0004/c2_b.jpg", "17/x_cam0.png"])
    write_images(source / "query", ["5/0009_c3s1_000001_00.jpg"])
    write_images(source / "gallery", ["5/c1_a.jpg", "-1/c1_a.jpg", "0/c1_b.JPG", "5/Thumbs.db"])
    assert read_labels(prepare(source, tmp_path)) == {
        "train": {"0004/c1_a.jpg": (4, 1), "0004/c2_b.jpg": (4, 2), "17/x_cam0.png": (17, 0)},
        # The identity is that of the folder, not of the file name.
        "query": {"5/0009_c3s1_000001_00.jpg": (5, 3)},
        "gallery": {"5/c1_a.jpg": (5, 1), "0/c1_b.JPG": (0, 1)},
    }
    said = capsys.readouterr().err
    assert "left out 3 that are not images: train/.cache, train/notes.txt, 5/Thumbs.db" in said
    assert "dropped 1 junk images" in said


def test_list_own_numbers_folders_named_by_words_alike_in_every_split(tmp_path):
    write_images(tmp_path / "train", ["carol/1.jpg", "alice/1.jpg"])
    write_images(tmp_path / "query", ["bob/1.jpg"])
    write_images(tmp_path / "gallery", ["dave/1.jpg", "bob/2.jpg", "12/1.jpg"])
    listing = list_own(tmp_path)
    assert not listing.problems
    assert labels(listing) == {
        "train": {"alice/1.jpg": (2, -1), "carol/1.jpg": (4, -1)},
        "query": {"bob/1.jpg": (3, -1)},
        "gallery": {"12/1.jpg": (1, -1), "bob/2.jpg": (3, -1), "dave/1.jpg": (5, -1)},
    }


def test_junk_stays_junk_with_identities_named_by_words(tmp_path):
    write_images(tmp_path / "query", ["alice/1.jpg", "bob/1.jpg"])
    write_images(tmp_path / "gallery", ["alice/2.jpg", "bob/2.jpg", "-1/1.jpg"])
    listing = list_own(tmp_path)
    assert not listing.problems
    assert labels(listing) == {
        "query": {"alice/1.jpg": (1, -1), "bob/1.jpg": (2, -1)},
        "gallery": {"alice/2.jpg": (1, -1), "bob/2.jpg": (2, -1)},
    }


@pytest.mark.parametrize("name", ["0007/c1_a.jpg", "0007_c1_a.jpg"])
def test_folders_without_images_change_nothing(tmp_path, name):
    write_images(tmp_path / "query", [name])
    write_images(tmp_path / "gallery", [name, name.replace("7", "9")])
    expected = labels(list_own(tmp_path))
    assert sorted(pid for pid, _ in expected["gallery"].values()) == [7, 9]
    write_images(tmp_path / "gallery", ["__MACOSX/._a.jpg", "@eaDir/Thumbs.db"])
    listing = list_own(tmp_path)
    assert not listing.problems
    assert labels(listing) == expected
    assert {"gallery/__MACOSX", "gallery/@eaDir"} <= set(listing.others)


def test_one_name_in_two_forms_of_unicode_is_one_person(tmp_path):
    composed, decomposed = "José", "José"
    write_images(tmp_path / "query", [f"{composed}/1.jpg", "Jot/1.jpg"])
    write_images(tmp_path / "gallery", [f"{decomposed}/2.jpg", "Josd/1.jpg"])
    listing = list_own(tmp_path)
    assert not listing.problems
    found = labels(listing)
    assert found["query"][f"{composed}/1.jpg"] == found["gallery"][f"{decomposed}/2.jpg"]
    assert len({pid for split in found.values() for pid, _ in split.values()}) == 3
    write_images(tmp_path / "gallery", [f"{composed}/3.jpg"])
    assert len(list_own(tmp_path).problems) == 1


@pytest.mark.parametrize("names", [["carol/day0/1.jpg"], ["carol/1.jpg", "carol/a/b/2.png"]])
def test_images_in_deeper_folders_are_refused(tmp_path, names):
    write_images(tmp_path / "train", ["alice/1.jpg", "alice/notes/a.txt", *names])
    (problem,) = list_own(tmp_path).problems
    assert "carol" in problem


def test_list_own_refuses_known_and_unknown_cameras_together(tmp_path):
    write_images(tmp_path / "own" / "query", ["1_c1_1.jpg"])
    write_images(tmp_path / "own" / "gallery", ["1_c2_1.jpg", "2_1.jpg"])
    with pytest.raises(ValueError, match=r"1 of 3 images have no camera .*2_1\.jpg has none"):
        prepare(tmp_path / "own", tmp_path)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (["1/a.jpg", "01/a.jpg"], "01 and 1 are the same number"),
        (["1/a.jpg", "stray.jpg"], "stray.jpg: not in a folder of an identity"),
        (["alice.jpg"], "alice.jpg: no identity and camera in its name"),
    ],
)
def test_list_own_reports_ambiguous_identities(tmp_path, train, message):
    write_images(tmp_path / "train", train)
    assert message in "\n".join(list_own(tmp_path).problems)


def test_list_own_reports_numbers_in_one_split_and_names_in_another(tmp_path):
    write_images(tmp_path / "query", ["alice/a.jpg"])
    write_images(tmp_path / "gallery", ["0001_1.jpg"])
    assert "folder names in one split and numbers" in list_own(tmp_path).problems[0]


@pytest.mark.parametrize(
    "names", [("bounding_box_train", "train"), ("bounding_box_test", "gallery")]
)
def test_list_own_reports_two_folders_of_one_split(tmp_path, names):
    """One of them would be left out without a word."""
    for name in ("train", "query", "gallery", *names):
        write_images(tmp_path / name, ["0001_c1.jpg", "0001_c2.jpg"])
    (problem,) = list_own(tmp_path).problems
    assert all(name in problem for name in names)


def test_list_own_accepts_some_splits_alone(tmp_path, capsys):
    write_images(tmp_path / "a" / "train", ["1_1.jpg"])
    assert list(prepare(tmp_path / "a", tmp_path, "folder/a").info.splits) == ["train"]
    assert "no folder for query and gallery" in capsys.readouterr().err
    write_images(tmp_path / "b" / "query", ["1_1.jpg"])
    write_images(tmp_path / "b" / "gallery", ["1_1.jpg"])
    assert list(prepare(tmp_path / "b", tmp_path, "folder/b").info.splits) == ["query", "gallery"]
    write_images(tmp_path / "c" / "query", ["1_1.jpg"])
    with pytest.raises(FileNotFoundError, match="query and gallery"):
        prepare(tmp_path / "c", tmp_path, "folder/c")


def test_folder_sources_are_not_confused(tmp_path):
    write_images(tmp_path / "a" / "train", ["1_1.jpg", "2_1.jpg"])
    write_images(tmp_path / "b" / "train", ["1_1.jpg", "3_1.jpg"])
    # Without a name each is kept under its file list.
    first = prepare(tmp_path / "a", tmp_path, "folder")
    second = prepare(tmp_path / "b", tmp_path, "folder")
    assert first.data_path != second.data_path
    assert list(read_labels(first)["train"]) == ["1_1.jpg", "2_1.jpg"]
    assert list(read_labels(second)["train"]) == ["1_1.jpg", "3_1.jpg"]
    # Under a name the other source is refused, the same one and none are not.
    named = prepare(tmp_path / "a", tmp_path, "folder/mine")
    assert prepare(tmp_path / "a", tmp_path, "folder/mine").data_path == named.data_path
    assert prepare(None, tmp_path, "folder/mine").data_path == named.data_path
    with pytest.raises(ValueError, match="prepared from other files"):
        prepare(tmp_path / "b", tmp_path, "folder/mine")
    # A file that changed its size makes another source.
    (tmp_path / "a" / "train" / "1_1.jpg").write_bytes(image_bytes(9, "PNG"))
    with pytest.raises(ValueError, match="prepared from other files"):
        prepare(tmp_path / "a", tmp_path, "folder/mine")


def test_folder_refuses_missing_sources_and_bad_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="pass the directory of the images"):
        prepare(None, tmp_path, "folder")
    with pytest.raises(FileNotFoundError, match="folder is not prepared in"):
        prepare(None, tmp_path, "folder/mine")
    write_images(tmp_path / "a" / "train", ["1_1.jpg"])
    with pytest.raises(ValueError, match=r"letters, digits, _ and - only, got '\.\./x'"):
        prepare(tmp_path / "a", tmp_path, "folder/../x")


def test_folder_refuses_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path / "own" / "train")
    os.makedirs(folder + b"/caf\xe9")
    for name in (b"/caf\xe9/1.jpg", b"/caf\xe9/2.jpg"):
        with open(folder + name, "wb") as file:
            file.write(image_bytes(0))
    with pytest.raises(ValueError, match="2 bad files") as error:
        prepare(tmp_path / "own", tmp_path)
    assert str(error.value).isascii()
    assert "caf\\udce9/1.jpg'): its name is not UTF-8" in str(error.value)
