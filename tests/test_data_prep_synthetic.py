import os

import pytest
import tensorflow_datasets as tfds

import data_prep
from data_prep.synthetic.layout import PRESETS, shots
from data_prep.synthetic.synthetic_dataset_builder import Builder
from tests.tiny_trees import read_labels


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    data_prep.prepare_dataset("synthetic/tiny", data_dir=directory)
    return directory


def rendered(directory):
    return directory / "synthetic_images" / "tiny-1.0.0"


def tiny_labels():
    labels = {"bounding_box_train": {}, "query": {}, "bounding_box_test": {}}
    for shot in shots(PRESETS["tiny"], 0):
        if shot.pid >= 0:
            folder, name = shot.path.split("/")
            labels[folder][name] = (shot.pid, shot.camera - 1)
    return dict(zip(("train", "query", "gallery"), labels.values(), strict=True))


def test_synthetic_is_rendered_and_prepared_once(data_dir):
    before = os.stat(rendered(data_dir)).st_mtime_ns
    builder = data_prep.prepare_dataset("synthetic/tiny", data_dir=data_dir)
    assert read_labels(builder) == tiny_labels()
    assert os.stat(rendered(data_dir)).st_mtime_ns == before


def test_synthetic_reads_images_that_were_rendered_elsewhere(data_dir, tmp_path):
    builder = data_prep.prepare_dataset("synthetic/tiny", rendered(data_dir), tmp_path)
    assert read_labels(builder) == tiny_labels()
    assert not (tmp_path / "synthetic_images").exists()


def test_synthetic_is_prepared_by_tfds_without_a_source(data_dir, tmp_path):
    # Rendered images that are there are not rendered again.
    (tmp_path / "synthetic_images").mkdir()
    rendered(tmp_path).symlink_to(rendered(data_dir), target_is_directory=True)
    source = tfds.data_source("synthetic/tiny", split="query", data_dir=tmp_path)
    assert len(source) == PRESETS["tiny"].query_images


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_synthetic_expects_the_counts_of_its_presets(tmp_path, preset):
    builder = Builder(data_dir=tmp_path, config=preset)
    plan = [shot for shot in shots(PRESETS[preset], 0) if shot.pid >= 0]
    for folder, split in (
        ("bounding_box_train", "train"),
        ("query", "query"),
        ("bounding_box_test", "gallery"),
    ):
        pids = [shot.pid for shot in plan if shot.folder == folder]
        count = builder.expected.splits[split]
        assert (count.images, count.identities) == (len(pids), len(set(pids)))
    assert builder.expected.cameras == len({shot.camera for shot in plan}) == 6
