import pytest

import data_prep
from data_prep.synthetic import synthetic_dataset_builder
from data_prep.synthetic.layout import PRESETS, shots
from data_prep.synthetic.render import render
from tests.tiny_trees import image_bytes, read_labels


@pytest.fixture
def rendered(monkeypatch):
    """Stands in for the renderer, which has its own tests: the plan with images of noise."""
    calls = []

    def render_noise(out, preset):
        calls.append(preset)
        for number, shot in enumerate(shots(PRESETS[preset], 0)):
            (out / shot.path).parent.mkdir(parents=True, exist_ok=True)
            (out / shot.path).write_bytes(image_bytes(number))
        return out

    monkeypatch.setattr(synthetic_dataset_builder, "render", render_noise)
    return calls


def test_rendered_once_then_prepared(tmp_path, rendered):
    builder = data_prep.prepare_dataset("synthetic/tiny", data_dir=tmp_path)
    labels = {"bounding_box_train": {}, "query": {}, "bounding_box_test": {}}
    for shot in shots(PRESETS["tiny"], 0):
        if shot.pid >= 0:
            folder, name = shot.path.split("/")
            labels[folder][name] = (shot.pid, shot.camera - 1)
    assert read_labels(builder) == {
        "train": labels["bounding_box_train"],
        "query": labels["query"],
        "gallery": labels["bounding_box_test"],
    }
    data_prep.prepare_dataset("synthetic/tiny", data_dir=tmp_path)
    assert rendered == ["tiny"]


def test_images_rendered_elsewhere_are_taken_from_there(tmp_path, rendered):
    synthetic_dataset_builder.render(tmp_path / "images", "tiny")
    data_prep.prepare_dataset("synthetic/tiny", tmp_path / "images", tmp_path / "tfds")
    assert rendered == ["tiny"]
    assert not (tmp_path / "tfds" / "synthetic_images").exists()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_expected_counts_are_the_presets(tmp_path, preset):
    builder = synthetic_dataset_builder.Builder(data_dir=tmp_path, config=preset)
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


def test_the_renderer_is_the_packages_own():
    assert synthetic_dataset_builder.render is render
