import pytest

from data_prep.errors import InputError
from data_prep.msmt17.msmt17_dataset_builder import Builder
from tests.tiny_trees import prepare_partial, read_labels, write_images

# list file: line's name -> identity and camera. The third field of the name is the camera.
LISTS = {
    "train": {
        "0000/0000_000_01_0303morning_0015_0.jpg": (0, 0),
        "0000/0000_045_12_0303morning_0006_2.jpg": (0, 11),
        "1040/1040_003_15_0302noon_0100_1.jpg": (1040, 14),
    },
    "val": {"0000/0000_001_02_0303morning_0020_0.jpg": (0, 1)},
    # The same identities, other people.
    "query": {"0000/0000_000_03_0113noon_0001_0.jpg": (0, 2)},
    "gallery": {
        "0000/0000_002_07_0113noon_0007_0.jpg": (0, 6),
        "3059/3059_009_10_0114afternoon_0333_1.jpg": (3059, 9),
    },
}


def write_msmt17(root, folders=("train", "test")):
    for name, labels in LISTS.items():
        write_images(root / folders[name in ("query", "gallery")], labels)
        lines = [f"{image} {pid}" for image, (pid, _) in labels.items()]
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n\n")
    return root


@pytest.mark.parametrize(
    ("root", "folders"),
    [("MSMT17_V1", ("train", "test")), ("MSMT17_V2", ("mask_train_v2", "mask_test_v2"))],
)
@pytest.mark.parametrize("config", ["train", "trainval"])
def test_msmt17_reads_every_pid_and_camid(tmp_path, root, folders, config):
    write_msmt17(tmp_path / "12_c3" / root, folders)
    builder = prepare_partial(f"msmt17/{config}", tmp_path / "12_c3", tmp_path / "tfds")
    train = LISTS["train"] | (LISTS["val"] if config == "trainval" else {})
    assert read_labels(builder) == {
        "train": train,
        "query": LISTS["query"],
        "gallery": LISTS["gallery"],
    }


def test_msmt17_train_needs_no_validation_list(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17")
    (root / "list_val.txt").unlink()
    builder = prepare_partial("msmt17/train", root, tmp_path / "tfds")
    assert builder.info.splits["train"].num_examples == 3
    with pytest.raises(FileNotFoundError, match=r"contains .*list_val\.txt.*--config trainval"):
        prepare_partial("msmt17/trainval", root, tmp_path / "tfds")


def test_msmt17_names_all_bad_lines_and_missing_images(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17")
    with open(root / "list_gallery.txt", "a") as file:
        file.write("0001/0001_000_04_0113noon_0001_0.jpg 1\n")  # no such file
        file.write("0001/0001_000_04_0113noon_0001_0.jpg\n")
        file.write("0001/other.jpg 1\n")
        file.write("0001/0001_000_00_0113noon_0001_0.jpg 1\n")
    with pytest.raises(ValueError, match="4 bad files") as error:
        prepare_partial("msmt17/train", root, tmp_path / "tfds")
    for wanted in (
        "0001_000_04_0113noon_0001_0.jpg: cannot be read (No such file or directory)",
        "list_gallery.txt, line 5: not a name and an identity",
        "list_gallery.txt, line 6: not a name and an identity: '0001/other.jpg 1'",
        "list_gallery.txt, line 7: bad identity or camera",
    ):
        assert wanted in str(error.value)


def test_msmt17_refuses_names_that_leave_the_root_and_numbers_that_do_not_fit(tmp_path):
    root = write_msmt17(tmp_path / "MSMT17")
    write_images(tmp_path, ["secret_000_04_0.jpg"])
    names = [
        "../../secret_000_04_0.jpg 1",
        f"{tmp_path}/secret_000_04_0.jpg 1",
        "a/../../../secret_000_04_0.jpg 1",
        "0000/a\0b_000_04_0.jpg 1",
        f"0000/0000_002_07_0113noon_0007_0.jpg {10**20}",
        f"0000/0000_002_{10**20}_0113noon_0007_0.jpg 1",
        f"0000/0000_002_07_0113noon_0007_0.jpg {'9' * 5000}",
    ]
    with open(root / "list_gallery.txt", "ab") as file:
        file.write(("\n".join(names) + "\n").encode() + b"0000/\xff_002_07_0.jpg 1\n")
    with pytest.raises(InputError, match="9 bad files") as error:
        prepare_partial("msmt17/train", root, tmp_path / "tfds")
    for line in range(4, 4 + len(names)):
        assert f"list_gallery.txt, line {line}: " in str(error.value), line
    assert "its name is not UTF-8" in str(error.value)


@pytest.mark.parametrize(("config", "train"), [("train", 30_248), ("trainval", 32_621)])
def test_msmt17_published_counts(tmp_path, config, train):
    counts = Builder(data_dir=tmp_path, config=config).expected
    images = [count.images for count in counts.splits.values()]
    identities = [count.identities for count in counts.splits.values()]
    assert (images, identities) == ([train, 11_659, 82_161], [1_041, 3_060, 3_060])
    assert counts.cameras == 15
