import io

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

import data_prep
from data_prep.cuhk03_np.cuhk03_np_dataset_builder import Builder
from data_prep.errors import InputError
from tests.tiny_trees import market_labels, prepare_partial, read_labels, write_market

# Protocol: name (pair of cameras, person, view, image) -> identity, and the splits, 1-based.
FILELIST = {
    "1_001_1_01.png": 1,
    "1_001_2_06.png": 1,
    "2_003_1_05.png": 2,
    "2_003_2_10.png": 2,
    "5_002_1_02.png": 900,
    "5_002_2_07.png": 900,
}
SPLITS = {"train": [1, 2], "query": [3, 5], "gallery": [4, 6]}
LABELS = {
    "train": {"1_001_1_01.png": (1, 0), "1_001_2_06.png": (1, 1)},
    "query": {"2_003_1_05.png": (2, 0), "5_002_1_02.png": (900, 0)},
    "gallery": {"2_003_2_10.png": (2, 1), "5_002_2_07.png": (900, 1)},
}


def pixels(name, variant):
    """The image [H, W, 3] of a name: each another, and the variants too."""
    pair, person, _, number = (int(part) for part in name[:-4].split("_"))
    rng = np.random.default_rng([pair, person, number, variant == "labeled"])
    return rng.integers(0, 256, (12 + pair, 5 + number, 3), dtype=np.uint8)


def write_images_mat(path, variants):
    """As MATLAB v7.3 stores cell arrays: HDF5 references, every array transposed."""
    names = {}
    for name in FILELIST:
        pair, person, _, number = (int(part) for part in name[:-4].split("_"))
        names[pair, person, number] = name
    with h5py.File(path, "w") as file:
        for variant in variants:
            pairs = file.create_dataset(variant, (1, 5), h5py.ref_dtype)
            for pair in range(1, 6):
                cells = file.create_dataset(f"#refs#/{variant}{pair}", (10, 3), h5py.ref_dtype)
                for person in range(1, 4):
                    for number in range(1, 11):
                        name = names.get((pair, person, number))
                        # MATLAB writes an empty cell as the two dimensions of an empty array.
                        stored = (
                            np.zeros(2, np.uint64)
                            if name is None
                            else pixels(name, variant).transpose(2, 1, 0)
                        )
                        place = f"#refs#/{variant}{pair}_{person}_{number}"
                        file[place] = stored
                        cells[number - 1, person - 1] = file[place].ref
                pairs[0, pair - 1] = cells.ref


def write_protocol(path, names=tuple(FILELIST), **changes):
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    arrays = {
        "filelist": cells,
        "labels": np.array([list(FILELIST.values())]).T,
        **{f"{split}_idx": np.array([idx]).T for split, idx in SPLITS.items()},
    }
    scipy.io.savemat(path, arrays | changes, do_compression=True)


def protocol_name(variant):
    return f"cuhk03_new_protocol_config_{variant}.mat"


@pytest.mark.parametrize("variant", ["labeled", "detected"])
@pytest.mark.parametrize("place", [".", "cuhk03_release"])
def test_matlab_files_give_every_image_pid_and_camid(tmp_path, variant, place):
    root = tmp_path / "CUHK03"
    (root / place).mkdir(parents=True)
    # One variant must not need the other's files.
    write_images_mat(root / place / "cuhk-03.mat", [variant])
    write_protocol(root / protocol_name(variant))
    builder = prepare_partial(f"cuhk03_np/{variant}", root, tmp_path / "tfds")
    assert read_labels(builder) == LABELS
    for split in LABELS:
        for record in data_prep.read_records(builder, split):
            decoded = np.asarray(Image.open(io.BytesIO(record["image_bytes"])))
            np.testing.assert_array_equal(decoded, pixels(record["name"], variant))


def test_matlab_names_all_missing_images(tmp_path):
    write_images_mat(tmp_path / "cuhk-03.mat", ["detected"])
    names = list(FILELIST)
    names[0], names[3], names[4] = "1_002_1_01.png", "4_009_1_01.png", "other.png"
    write_protocol(tmp_path / protocol_name("detected"), names)
    with pytest.raises(ValueError, match="3 bad files") as error:
        prepare_partial("cuhk03_np/detected", tmp_path, tmp_path / "tfds")
    for wanted in (
        "detected, pair 1, person 2, image 1: not an RGB image but uint64 of shape (2,)",
        "detected, pair 4, person 9, image 1: not in the file",
        "image 5 of the query split is 'other.png'",
    ):
        assert wanted in str(error.value)


def test_matlab_refuses_another_file_as_protocol(tmp_path):
    write_images_mat(tmp_path / "cuhk-03.mat", ["detected"])
    scipy.io.savemat(tmp_path / protocol_name("detected"), {"labels": [1]})
    with pytest.raises(ValueError, match="no filelist, train_idx, query_idx, gallery_idx in it"):
        prepare_partial("cuhk03_np/detected", tmp_path, tmp_path / "tfds")


LIST = list(FILELIST.values())


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "labels: NaN": ("labels", [*LIST[:5], np.nan]),
        "labels: infinity": ("labels", [*LIST[:5], np.inf]),
        "labels: fraction": ("labels", [*LIST[:5], 1.5]),
        "labels: too large": ("labels", [*LIST[:5], 1e20]),
        "labels: negative": ("labels", [*LIST[:5], -1]),
        "labels: complex": ("labels", np.array(LIST) + 1j),
        "labels: text": ("labels", "abcdef"),
        "labels: cells": ("labels", np.array([*LIST[:5], "six"], object)),
        "labels: sparse": ("labels", scipy.sparse.csc_array(np.array([LIST], float))),
        "labels: struct": ("labels", {"a": 1}),
        "labels: too few": ("labels", LIST[:5]),
        "labels: bomb": ("labels", np.zeros((2000, 1000), np.uint8)),
        "index: NaN": ("query_idx", [np.nan]),
        "index: zero": ("train_idx", [0]),
        "index: text": ("gallery_idx", "3"),
        "filelist: numbers": ("filelist", np.arange(6)),
        "filelist: text": ("filelist", "1_001_1_01.png"),
        "filelist: cells of numbers": ("filelist", np.array([1, 2, 3, 4, 5, "x"], object)),
        "filelist: an empty cell": ("filelist", np.array(["x"] * 5 + [np.zeros(0)], object)),
        "filelist: sparse": ("filelist", scipy.sparse.csc_array(np.eye(3))),
        "filelist: struct": ("filelist", {"a": 1}),
    }.values(),
)
def test_matlab_refuses_other_values_in_the_protocol(tmp_path, name, values):
    write_images_mat(tmp_path / "cuhk-03.mat", ["detected"])
    protocol = tmp_path / protocol_name("detected")
    write_protocol(protocol, **{name: values})
    with pytest.raises(InputError, match=f"{protocol}.*{name}"):
        prepare_partial("cuhk03_np/detected", tmp_path, tmp_path / "tfds")


def damage_protocol(path, how):
    if how == "HDF5":
        path.unlink()
        with h5py.File(path, "w") as file:
            file["labels"] = LIST
        return
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "text": b"these are not arrays" * 20,
        "zeros": bytes(len(content)),
        "flipped": content[:140] + bytes(byte ^ 255 for byte in content[140:200]) + content[200:],
        "large": content + bytes(2**23),
    }
    path.write_bytes(damaged[how])


@pytest.mark.parametrize("how", ["HDF5", "empty", "cut", "text", "zeros", "flipped", "large"])
def test_matlab_refuses_a_damaged_protocol(tmp_path, how):
    write_images_mat(tmp_path / "cuhk-03.mat", ["detected"])
    protocol = tmp_path / protocol_name("detected")
    write_protocol(protocol)
    damage_protocol(protocol, how)
    with pytest.raises(InputError, match=str(protocol)):
        prepare_partial("cuhk03_np/detected", tmp_path, tmp_path / "tfds")


def damage_images(path, how):
    if how in ("not HDF5", "cut"):
        path.write_bytes(b"MATLAB 5.0 MAT-file" if how == "not HDF5" else path.read_bytes()[:900])
        return
    (path.parent / "secret").write_bytes(b"secret" * 100)
    with h5py.File(path, "r+") as file:
        place = file[file["detected"][0, 0]]
        if how == "group":
            del file["detected"]
            file.create_group("detected")
        elif how == "numbers":
            del file["detected"]
            file["detected"] = np.zeros((1, 5))
        elif how == "scalar":
            del file["detected"]
            file["detected"] = 3
        elif how == "null references":
            place[...] = np.full(place.shape, h5py.Reference(), h5py.ref_dtype)
        elif how == "cell is a group":
            place[0, 0] = file["#refs#"].ref
        elif how == "too large":
            shape = (3, 2**13, 4)
            file.create_dataset("large", shape, np.uint8, chunks=(1, 64, 4))
            place[0, 0] = file["large"].ref
        elif how == "no pixels":
            file.create_dataset("none", (3, 0, 5), np.uint8)
            place[0, 0] = file["none"].ref
        elif how == "external":
            outside = [(str(path.parent / "secret"), 0, 300)]
            file.create_dataset("outside", (3, 10, 10), np.uint8, external=outside)
            place[0, 0] = file["outside"].ref
        elif how == "virtual":
            layout = h5py.VirtualLayout((3, 10, 10), np.uint8)
            layout[...] = h5py.VirtualSource("other.h5", "data", (3, 10, 10))
            file.create_virtual_dataset("virtual", layout)
            place[0, 0] = file["virtual"].ref
        elif how == "link":
            del file["detected"]
            file["detected"] = h5py.ExternalLink("other.h5", "data")


@pytest.mark.parametrize(
    "how",
    [
        "not HDF5", "cut", "group", "numbers", "scalar", "null references", "cell is a group",
        "too large", "no pixels", "external", "virtual", "link",
    ],
)  # fmt: skip
def test_matlab_refuses_damaged_images_and_values_in_other_files(tmp_path, how):
    path = tmp_path / "cuhk-03.mat"
    write_images_mat(path, ["detected"])
    write_protocol(tmp_path / protocol_name("detected"))
    damage_images(path, how)
    with pytest.raises(InputError, match=str(path)):
        prepare_partial("cuhk03_np/detected", tmp_path, tmp_path / "tfds")


@pytest.mark.parametrize("variant", ["labeled", "detected"])
def test_cuhk03_reads_folders_in_markets_layout(tmp_path, variant):
    root = tmp_path / "cuhk03-np"
    write_market(root / variant)
    # The root, the directory above it, or the variant's own.
    for number, source in enumerate([root, tmp_path, root / variant]):
        builder = prepare_partial(f"cuhk03_np/{variant}", source, tmp_path / f"tfds{number}")
        assert read_labels(builder) == market_labels()


def test_cuhk03_does_not_take_one_variant_for_the_other(tmp_path):
    write_market(tmp_path / "detected")
    for source in (tmp_path, tmp_path / "detected"):
        with pytest.raises(FileNotFoundError, match="labeled/bounding_box_train"):
            prepare_partial("cuhk03_np/labeled", source, tmp_path / "tfds")


@pytest.mark.parametrize(
    ("variant", "images"),
    [("labeled", [7_368, 1_400, 5_328]), ("detected", [7_365, 1_400, 5_332])],
)
def test_cuhk03_published_counts(tmp_path, variant, images):
    counts = Builder(data_dir=tmp_path, config=variant).expected
    assert [count.images for count in counts.splits.values()] == images
    assert [count.identities for count in counts.splits.values()] == [767, 700, 700]
    assert counts.cameras == 2
