import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

import data_prep
from data_prep.building import ReidBuilder
from data_prep.command import main
from data_prep.listing import Count, Counts
from data_prep.market1501.market1501_dataset_builder import Builder
from tests.tiny_trees import (
    MARKET,
    image_bytes,
    market_labels,
    prepare_partial,
    read_labels,
    write_images,
    write_market,
)

TINY = Counts(
    {"train": Count(4, 3), "query": Count(2, 1), "gallery": Count(4, 2)},
    cameras=6,
)


@pytest.fixture
def source(tmp_path):
    return write_market(tmp_path / "Market-1501")


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "tfds"


@pytest.fixture
def tiny_counts(monkeypatch):
    """Market-1501's published counts are those of the tiny tree."""
    monkeypatch.setattr(Builder, "expected", TINY)


def prepared_directories(data_dir):
    return sorted(path.name for path in (data_dir / "market1501").glob("[!.]*"))


def test_a_whole_set_is_prepared_once(source, data_dir, tiny_counts):
    builder = data_prep.prepare_dataset("market1501", source, data_dir)
    assert read_labels(builder) == market_labels()
    assert prepared_directories(data_dir) == ["1.0.0"]
    # From now on it needs no source, and reads none.
    for name in MARKET:
        for path in (source / name).iterdir():
            path.unlink()
    again = data_prep.prepare_dataset("market1501", data_dir=data_dir)
    assert again.data_path == builder.data_path
    assert read_labels(again) == market_labels()


def test_records_are_the_original_files_in_the_order_of_their_names(source, data_dir, tiny_counts):
    builder = data_prep.prepare_dataset("market1501", source, data_dir)
    records = data_prep.read_records(builder, "train")
    names = [record["name"] for record in records]
    assert len(records) == 4
    assert names == sorted(names)
    for index in (3, 0, 2, 1):
        record = records[index]
        on_disk = (source / "bounding_box_train" / record["name"]).read_bytes()
        assert record["image_bytes"] == on_disk
        assert [type(record[key]) for key in ("image_bytes", "pid", "camid", "name")] == [
            bytes,
            int,
            int,
            str,
        ]
    for index in (4, -1):
        with pytest.raises(IndexError, match=f"record {index} of a split of 4"):
            records[index]
    with pytest.raises(KeyError, match=r"no split 'val', only .*'gallery'"):
        data_prep.read_records(builder, "val")


def test_tfds_reads_it_as_any_other_set(source, data_dir, tiny_counts):
    data_prep.prepare_dataset("market1501", source, data_dir)
    builder = tfds.builder("market1501", data_dir=data_dir)
    assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
    example = builder.as_data_source("query")[0]
    assert example["image"].shape == (64, 32, 3)
    assert (example["pid"], example["camid"]) == (1, 0)
    assert example["name"] == b"0001_c1s1_001051_00.jpg"


def test_tfds_prepares_it_as_any_other_set(source, data_dir, tiny_counts):
    config = tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False)
    builder = Builder(data_dir=data_dir)
    builder.download_and_prepare(download_config=config)
    assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
    assert read_labels(builder) == market_labels()


def _names(path: str, split: str) -> list[str]:
    return [
        record["name"] for record in data_prep.read_records(data_prep.open_prepared(path), split)
    ]


def test_worker_processes_read_it_from_its_path(source, data_dir, tiny_counts):
    builder = data_prep.prepare_dataset("market1501", source, data_dir)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        names = pool.apply(_names, (os.fspath(builder.data_path), "gallery"))
    assert names == list(market_labels()["gallery"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "query/0001_c4s6_016996_00.jpg").unlink(),
            "query has 1 images of 1 identities, expected 2 of 1",
        ),
        (
            lambda root: (root / "query/0001_c4s6_016996_00.jpg").rename(
                root / "query/0005_c4s6_016996_00.jpg"
            ),
            "query has 2 images of 2 identities, expected 2 of 1",
        ),
        (
            lambda root: (root / "bounding_box_train/0007_c3s3_077419_03.JPG").rename(
                root / "bounding_box_train/0007_c9s3_077419_03.JPG"
            ),
            "7 cameras, expected 6",
        ),
    ],
)
def test_other_counts_are_an_error_or_a_warning(source, data_dir, monkeypatch, change, message):
    # A second image of camera 3, so that renaming the first adds a camera and loses none.
    write_images(source / "bounding_box_train", ["0002_c3s1_000001_00.jpg"])
    monkeypatch.setattr(
        Builder, "expected", Counts({**TINY.splits, "train": Count(5, 3)}, cameras=6)
    )
    change(source)
    with pytest.raises(ValueError, match=re.escape(message)):
        data_prep.prepare_dataset("market1501", source, data_dir)
    assert prepared_directories(data_dir) == []
    with pytest.warns(UserWarning, match=re.escape(message)):
        data_prep.prepare_dataset("market1501", source, data_dir, allow_partial=True)
    assert prepared_directories(data_dir) == ["1.0.0"]
    # What was accepted once is not taken for the whole set later.
    with pytest.raises(ValueError, match=f"partial copy: {re.escape(message)}"):
        data_prep.prepare_dataset("market1501", source, data_dir)
    data_prep.prepare_dataset("market1501", source, data_dir, allow_partial=True)


def test_bad_images_are_all_named_and_nothing_is_written(source, data_dir, tiny_counts):
    bad = [
        source / "bounding_box_train" / "0002_c1s1_000451_03.jpg",
        source / "query" / "0001_c1s1_001051_00.jpg",
        source / "bounding_box_test" / "0000_c1s1_000151_01.jpg",
    ]
    bad[0].write_bytes(image_bytes(0)[:-500])
    bad[1].write_bytes(b"")
    bad[2].write_bytes(b"<html>404 not found</html>")
    for allow_partial in (False, True):
        with pytest.raises(ValueError, match=r"market1501 was not prepared.*3 bad files") as error:
            data_prep.prepare_dataset("market1501", source, data_dir, allow_partial)
        assert all(f"{path}: " in str(error.value) for path in bad)
        assert prepared_directories(data_dir) == []
    # Junk is left out before it is looked at, as it is not part of the set.
    for seed, path in enumerate(bad):
        path.write_bytes(image_bytes(seed))
    (source / "bounding_box_test" / "-1_c1s1_000401_03.jpg").write_bytes(b"")
    data_prep.prepare_dataset("market1501", source, data_dir)


def test_an_empty_split_is_an_error_even_of_a_partial_copy(source, data_dir):
    for path in (source / "query").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="query has no images"):
        prepare_partial("market1501", source, data_dir)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("No space left on device")])
def test_interrupted_writing_leaves_nothing(
    source, data_dir, tiny_counts, monkeypatch, interruption
):
    whole = ReidBuilder._generate_examples

    def interrupted(self, split, items):
        examples = whole(self, split, items)
        yield next(examples)
        if split == "gallery":
            raise interruption
        yield from examples

    with monkeypatch.context() as patch:
        patch.setattr(ReidBuilder, "_generate_examples", interrupted)
        with pytest.raises((KeyboardInterrupt, OSError)):
            data_prep.prepare_dataset("market1501", source, data_dir)
    assert prepared_directories(data_dir) == []
    builder = data_prep.prepare_dataset("market1501", source, data_dir)
    assert read_labels(builder) == market_labels()


KILLED = """
import sys, time
from pathlib import Path
from data_prep.building import ReidBuilder
from tests.tiny_trees import prepare_partial

def slow(self, split, items):
    yield from whole(self, split, items)
    if split == "query":
        print("two splits are written", flush=True)
        time.sleep(60)

whole, ReidBuilder._generate_examples = ReidBuilder._generate_examples, slow
prepare_partial("market1501", Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_preparation_is_cleaned_up_by_the_next(source, data_dir, capsys):
    command = [sys.executable, "-c", KILLED, source, data_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as run:
        assert run.stdout.readline() == b"two splits are written\n"
        run.send_signal(signal.SIGKILL)
    (leftover,) = prepared_directories(data_dir)
    assert leftover.startswith("incomplete.")
    with pytest.raises(FileNotFoundError, match="is not prepared"):
        data_prep.prepare_dataset("market1501", data_dir=data_dir)
    builder = prepare_partial("market1501", source, data_dir)
    assert read_labels(builder) == market_labels()
    assert prepared_directories(data_dir) == ["1.0.0"]
    assert "left by an interrupted preparation" in capsys.readouterr().err


def test_a_directory_of_the_final_name_that_is_not_whole_is_refused(source, data_dir):
    (data_dir / "market1501" / "1.0.0").mkdir(parents=True)
    with pytest.raises(ValueError, match="is there but not a complete data set"):
        prepare_partial("market1501", source, data_dir)


def test_two_processes_at_once_prepare_it_once(source, data_dir):
    program = (
        "import sys; from pathlib import Path; from tests.tiny_trees import prepare_partial\n"
        "prepare_partial('market1501', Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, source, data_dir]
    root = Path(__file__).parents[1]
    runs = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=root) for _ in range(2)
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    # Only one of them listed the images.
    assert sorted("dropped 2 junk" in text for text in said) == [False, True]
    assert read_labels(prepare_partial("market1501", None, data_dir)) == market_labels()


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("market1501", "zheng-lab"),
        ("dukemtmc_reid", "--source DIR"),
        ("cuhk03_np/labeled", "CUHK_identification"),
        ("cuhk03_np/detected", "--config detected"),
        ("msmt17/train", "pkuvmc"),
        ("msmt17/trainval", "--config trainval"),
        ("folder/mine", "--source DIR"),
    ],
)
def test_what_is_not_prepared_says_how_to_get_it(data_dir, name, page):
    with pytest.raises(FileNotFoundError) as error:
        data_prep.prepare_dataset(name, data_dir=data_dir)
    message = str(error.value)
    for wanted in (
        f"is not prepared in {data_dir}",
        page,
        f"python -m data_prep.{name.split('/')[0]} --source DIR",
        "python -m experiments.synthetic_rmgl",
    ):
        assert wanted in message
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("market", "there are market1501, dukemtmc_reid"),
        ("market1501/train", "there is market1501."),
        ("msmt17", "there is msmt17/train, msmt17/trainval"),
        ("cuhk03_np/new", "there is cuhk03_np/labeled, cuhk03_np/detected"),
    ],
)
def test_unknown_names(data_dir, name, message):
    with pytest.raises(ValueError, match=f"unknown data set '{name}'; {message}"):
        data_prep.prepare_dataset(name, data_dir=data_dir)


def test_command_line(source, data_dir, tiny_counts, capsys):
    main("market1501", arguments=["--source", str(source), "--data_dir", str(data_dir)])
    printed = capsys.readouterr().out
    assert re.findall(r"(\w+) +(\d+) images", printed) == [
        ("train", "4"),
        ("query", "2"),
        ("gallery", "4"),
    ]
    assert str(data_dir / "market1501" / "1.0.0") in printed


def test_command_line_of_a_partial_copy(source, data_dir, capsys):
    arguments = ["--source", str(source), "--data_dir", str(data_dir)]
    with pytest.raises(SystemExit, match="train has 4 images of 3 identities, expected 12,936"):
        main("market1501", arguments=arguments)
    main("market1501", arguments=[*arguments, "--allow_partial"])
    assert "Warning: market1501 is partial" in capsys.readouterr().err


def test_command_line_of_configurations(tmp_path, data_dir):
    arguments = ["--source", str(tmp_path), "--data_dir", str(data_dir)]
    with pytest.raises(SystemExit, match="cuhk03_new_protocol_config_detected"):
        main("cuhk03_np", ["labeled", "detected"], [*arguments, "--config", "detected"])
    write_images(tmp_path / "own" / "train", ["1_1.jpg"])
    main("folder", arguments=[*arguments, "--name", "mine"])
    assert (data_dir / "folder" / "mine" / "1.0.0").is_dir()


IMPORTS = """
import sys
from pathlib import Path
from tests.tiny_trees import prepare_partial, read_labels
builder = prepare_partial("market1501", Path(sys.argv[1]), Path(sys.argv[2]))
assert read_labels(builder)
builder.as_data_source("query")[0]
print(sorted({"jax", "jaxlib", "flax", "torch", "tensorflow"} & set(sys.modules)))
"""


def test_preparing_and_reading_imports_no_framework(source, data_dir):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", IMPORTS, source, data_dir]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_importing_the_package_imports_not_even_tfds():
    program = "import sys, data_prep; print('tensorflow_datasets' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'prepare'"):
        data_prep.prepare  # noqa: B018


def test_command_line_interrupted(source, data_dir, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ReidBuilder, "_generate_examples", interrupted)
    arguments = ["--source", str(source), "--data_dir", str(data_dir), "--allow_partial"]
    with pytest.raises(SystemExit, match="130"):
        main("market1501", arguments=arguments)
    assert "market1501: interrupted, nothing was kept" in capsys.readouterr().err
    assert prepared_directories(data_dir) == []
