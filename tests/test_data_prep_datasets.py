import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import data_prep
from data_prep.datasets import builder_class, list_datasets, root_names
from data_prep.errors import InputError
from tests.tiny_trees import write_market


def test_dataset_names_are_those_of_the_builders():
    names = data_prep.dataset_names()
    assert list(names) == list_datasets()
    assert names == {
        "cuhk03_np": ("cuhk03_np/labeled", "cuhk03_np/detected"),
        "dukemtmc_reid": ("dukemtmc_reid",),
        "folder": (),
        "market1501": ("market1501",),
        "msmt17": ("msmt17/train", "msmt17/trainval"),
        "synthetic": ("synthetic/tiny", "synthetic/demo", "synthetic/full"),
    }


def test_published_test_sets_join_variants_with_the_same_test_images():
    assert data_prep.published_test_sets() == [
        ("cuhk03_np/labeled",),
        ("cuhk03_np/detected",),
        ("dukemtmc_reid",),
        ("market1501",),
        ("msmt17/train", "msmt17/trainval"),
    ]
    for names in data_prep.published_test_sets():
        tests = []
        for name in names:
            dataset, _, variant = name.partition("/")
            builder = builder_class(dataset)(config=variant or None)
            tests.append({k: v for k, v in builder.expected.splits.items() if k != "train"})
        assert tests == tests[:1] * len(names)


def test_root_names_belong_to_one_dataset_each():
    names = [name for owned in root_names().values() for name in owned]
    assert len(set(names)) == len(names)
    assert "MSMT17_V1" in names


def test_builder_class_of_an_unknown_dataset_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'command'.*market1501, msmt17"):
        builder_class("command")


USE_NEW = """
import sys
import data_prep, tensorflow_datasets as tfds
print(data_prep.dataset_names()["campus"], data_prep.published_test_sets()[0])
print(tfds.builder("campus", data_dir=sys.argv[2]).name)
from data_prep.command import prepare_main
prepare_main("market1501", ["--source", sys.argv[1], "--data-dir", sys.argv[2], "--allow-partial"])
"""


def test_new_dataset_is_one_new_folder(tmp_path):
    source = Path(data_prep.__file__).parent
    shutil.copytree(source, tmp_path / "data_prep", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "data_prep" / "campus"
    folder.mkdir()
    (folder / "__init__.py").touch()
    text = (source / "market1501" / "market1501_dataset_builder.py").read_text()
    text = text.replace('("Market-1501-v15.09.15", ', '("Campus-ReID", "Campus", ')
    text = text.replace('"Market-1501", "Market1501", "Market")', ")")
    (folder / "campus_dataset_builder.py").write_text(text)
    # Market-1501 is not searched in the directory that is now known as another dataset's.
    write_market(tmp_path / "raw" / "campus_reid")
    command = [sys.executable, "-c", USE_NEW, tmp_path / "raw", tmp_path / "tfds"]
    run = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
    assert run.stdout == "('campus',) ('campus',)\ncampus\n"
    assert run.returncode == 1
    assert "market1501: found no directory that contains" in run.stderr
    assert "Traceback" not in run.stderr
