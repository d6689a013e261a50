import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.scripts.cli import build, cli_utils

import data_prep
from data_prep.command import main, prepare_main
from data_prep.errors import ExpectedError, InputError, MissingFileError
from data_prep.listing import Count, Counts
from data_prep.market1501.market1501_dataset_builder import Builder
from data_prep.synthetic import contact_sheet
from tests.full_disk import full_disk
from tests.tiny_trees import (
    MARKET,
    SecondReading,
    image_bytes,
    market_labels,
    prepare_partial,
    read_labels,
    write_images,
    write_market,
)

ROOT = Path(__file__).parents[1]

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


def run_program(program, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], text=True, check=True, cwd=ROOT, **options
    )


def test_prepare_dataset_writes_once_and_needs_no_source_later(source, data_dir, tiny_counts):
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


def test_records_are_the_original_files_by_name(source, data_dir, tiny_counts):
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
    assert [record["name"] for record in records[1:3]] == names[1:3]
    for index in (4, -1):
        with pytest.raises(IndexError, match=f"record {index} of a split of 4"):
            records[index]
    with pytest.raises(KeyError, match=r"no split 'val', only .*'gallery'"):
        data_prep.read_records(builder, "val")


def test_tfds_builder_and_data_source_find_a_prepared_dataset(source, data_dir, tiny_counts):
    data_prep.prepare_dataset("market1501", source, data_dir)
    for file_format in (None, "array_record"):
        builder = tfds.builder("market1501", data_dir=data_dir, file_format=file_format)
        assert isinstance(builder, Builder)
        assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
    example = tfds.data_source("market1501", split="query", data_dir=data_dir)[0]
    assert example["image"].shape == (64, 32, 3)
    assert (example["pid"], example["camid"]) == (1, 0)
    assert example["name"] == b"0001_c1s1_001051_00.jpg"
    with pytest.raises(ValueError, match=r"already set to .*ARRAY_RECORD"):
        tfds.builder("market1501", data_dir=data_dir, file_format="tfrecord")


def test_tfds_download_and_prepare_reads_manual_dir(source, data_dir, tiny_counts):
    config = tfds.download.DownloadConfig(manual_dir=source, try_download_gcs=False)
    builder = tfds.builder("market1501", data_dir=data_dir)
    builder.download_and_prepare(download_config=config)
    assert read_labels(builder) == market_labels()
    assert read_labels(data_prep.prepare_dataset("market1501", data_dir=data_dir)) == (
        market_labels()
    )


def test_tfds_build_prepares_a_dataset_folder(source, data_dir):
    # The command `tfds build` itself imports TensorFlow; its module does not.
    parse = cli_utils.make_flags_parser(build.Args, description="")
    arguments = ["tfds", str(ROOT / "data_prep" / "folder"), "--manual_dir", str(source)]
    parse([*arguments, "--data_dir", str(data_dir)]).execute()
    found = data_prep.open_prepared(data_dir / "folder" / "1.0.0")
    assert read_labels(found)["query"] == {
        "0001_c1s1_001051_00.jpg": (1, 1),
        "0001_c4s6_016996_00.jpg": (1, 4),
    }


def test_find_prepared_gives_the_builder_or_none(source, data_dir):
    assert data_prep.find_prepared("market1501", data_dir) is None
    prepare_partial("market1501", source, data_dir)
    assert read_labels(data_prep.find_prepared("market1501", data_dir)) == market_labels()
    with pytest.raises(InputError, match="market1502"):
        data_prep.find_prepared("market1502", data_dir)


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
def test_unexpected_counts_fail_or_warn(source, data_dir, monkeypatch, change, message, capsys):
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
    # A partial copy is not taken for the whole dataset later.
    with pytest.raises(ValueError, match=f"partial copy: {re.escape(message)}"):
        data_prep.prepare_dataset("market1501", source, data_dir)
    data_prep.prepare_dataset("market1501", source, data_dir, allow_partial=True)
    assert message in capsys.readouterr().err
    # Neither is it extended in silence.
    write_images(source / "bounding_box_train", ["0002_c1s1_000001_00.jpg"])
    with pytest.raises(ValueError, match="other files"):
        data_prep.prepare_dataset("market1501", source, data_dir, allow_partial=True)
    data_prep.prepare_dataset("market1501", data_dir=data_dir, allow_partial=True)
    source.rename(source.with_name("away"))
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


def test_empty_split_is_an_error_even_of_a_partial_copy(source, data_dir):
    for path in (source / "query").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="query has no images"):
        prepare_partial("market1501", source, data_dir)


def interrupt_writing(monkeypatch, interruption):
    """The last image of the gallery cannot be read a second time, when it is written."""
    whole = Builder.list_images

    def list_images(root):
        listing = whole(root)
        last = listing.splits["gallery"][-1]
        listing.splits["gallery"][-1] = last._replace(file=SecondReading(last.file, interruption))
        return listing

    monkeypatch.setattr(Builder, "list_images", staticmethod(list_images))


def raise_keyboard_interrupt():
    raise KeyboardInterrupt


def raise_full_disk():
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("interruption", [raise_keyboard_interrupt, raise_full_disk])
def test_interrupted_writing_leaves_nothing(
    source, data_dir, tiny_counts, monkeypatch, interruption
):
    with monkeypatch.context() as patch:
        interrupt_writing(patch, interruption)
        with pytest.raises((KeyboardInterrupt, OSError)):
            data_prep.prepare_dataset("market1501", source, data_dir)
    assert prepared_directories(data_dir) == []
    builder = data_prep.prepare_dataset("market1501", source, data_dir)
    assert read_labels(builder) == market_labels()


KILLED = """
import sys, time, pytest
from tests.test_data_prep_preparing import interrupt_writing
from tests.tiny_trees import prepare_partial

def wait():
    print("two splits are written", flush=True)
    time.sleep(60)

interrupt_writing(pytest.MonkeyPatch(), wait)
prepare_partial("market1501", sys.argv[1], sys.argv[2])
"""


def test_killed_preparation_is_cleaned_up_by_the_next(source, data_dir, capsys):
    command = [sys.executable, "-c", KILLED, source, data_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as run:
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


def prepared_files(data_dir):
    return sorted(path.name for path in (data_dir / "market1501" / "1.0.0").iterdir())


JSON_FILES = ["dataset_info.json", "features.json", "metadata.json"]


@pytest.mark.parametrize("name", JSON_FILES)
def test_damaged_description_of_a_dataset_is_named(source, data_dir, name):
    directory = prepare_partial("market1501", source, data_dir).data_path
    path = Path(directory) / name
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[: len(whole) // 2],
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        whole.replace(b"[", b"{").replace(b"]", b"}"),
    ):
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        for open_dataset in (
            lambda: prepare_partial("market1501", source, data_dir),
            lambda: data_prep.find_prepared("market1501", data_dir),
            lambda: data_prep.open_prepared(directory),
        ):
            with pytest.raises(InputError, match=str(path)):
                open_dataset()
    path.write_bytes(whole)
    assert read_labels(data_prep.open_prepared(directory)) == market_labels()


def test_features_of_other_classes_are_refused_before_their_module_is_imported(source, data_dir):
    path = prepare_partial("market1501", source, data_dir).data_path / "features.json"
    text = path.read_text()
    path.write_text(text.replace("tensorflow_datasets.core.features.text_feature", "antigravity"))
    with pytest.raises(InputError, match=str(path)):
        data_prep.open_prepared(path.parent)
    assert "antigravity" not in sys.modules


def test_damaged_records_are_named(source, data_dir):
    directory = Path(prepare_partial("market1501", source, data_dir).data_path)
    (path,) = directory.glob("*-train.array_record-*")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    for position in range(len(whole) // 8, len(whole) - len(whole) // 8, 97):
        flipped[position] ^= 16
    damages = [b"", whole[: len(whole) // 2], whole[:-1], bytes(len(whole)), bytes(flipped)]
    for number, damaged in enumerate(damages):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=re.escape(str(directory))) as error:
            list(data_prep.read_records(data_prep.open_prepared(directory), "train"))
        assert "market1501-train.array_record-" in str(error.value), number
    path.unlink()
    with pytest.raises(MissingFileError, match=str(path)):
        data_prep.open_prepared(directory)


def test_records_of_another_number_are_refused(source, data_dir):
    path = prepare_partial("market1501", source, data_dir).data_path / "dataset_info.json"
    info = json.loads(path.read_text())
    train = next(split for split in info["splits"] if split["name"] == "train")
    for lengths in (["3"], ["5"], ["4", "4"]):
        train["shardLengths"] = lengths
        path.write_text(json.dumps(info))
        with pytest.raises(ExpectedError, match=str(path.parent)):
            data_prep.open_prepared(path.parent)


@pytest.mark.parametrize(
    "pattern",
    [
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y",
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{0}",
        "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Z}",
        "{DATASET}-{SPLIT!z}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "../{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    ],
)
def test_records_of_other_names_are_refused(pattern, source, data_dir):
    path = prepare_partial("market1501", source, data_dir).data_path / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        split["filepathTemplate"] = pattern
    path.write_text(json.dumps(info))
    with pytest.raises(ExpectedError, match=str(path.parent.parent)):
        data_prep.open_prepared(path.parent)


def test_links_out_of_the_root_are_refused(source, data_dir, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(image_bytes(0))
    inside = source / "query" / "0001_c2s1_000001_00.jpg"
    inside.symlink_to("0001_c1s1_001051_00.jpg")
    # The root itself may be a link.
    (tmp_path / "link").symlink_to(source, target_is_directory=True)
    prepare_partial("market1501", tmp_path / "link", data_dir / "first")
    outside = source / "query" / "0001_c3s1_000001_00.jpg"
    outside.symlink_to(secret)
    with pytest.raises(InputError, match=f"{outside}: leads to {secret}"):
        prepare_partial("market1501", source, data_dir / "second")
    (source / "query").rename(tmp_path / "query")
    (source / "query").symlink_to(tmp_path / "query", target_is_directory=True)
    with pytest.raises(InputError, match="4 bad files") as error:
        prepare_partial("market1501", source, data_dir / "second")
    for path in (inside, outside, source / "query" / "0001_c1s1_001051_00.jpg"):
        assert f"{path}: leads to " in str(error.value)


def test_loops_pipes_and_devices_are_named(source, data_dir):
    query = source / "query"
    names = [f"0001_c{camera}s1_000001_00.jpg" for camera in (1, 2, 3)]
    (query / names[0]).symlink_to(names[0])
    os.mkfifo(query / names[1])
    (query / names[2]).symlink_to("/dev/zero")
    (query / "loop").symlink_to("loop")
    with pytest.raises(InputError) as error:
        prepare_partial("market1501", source, data_dir)
    assert all(f"{query / name}: " in str(error.value) for name in names)


def test_incomplete_directory_of_the_final_name_is_refused(source, data_dir):
    (data_dir / "market1501" / "1.0.0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"1\.0\.0 exists but is not a complete dataset"):
        prepare_partial("market1501", source, data_dir)


def test_two_processes_at_once_prepare_only_once(source, data_dir):
    program = (
        "import sys; from tests.tiny_trees import prepare_partial\n"
        "prepare_partial('market1501', sys.argv[1], sys.argv[2])"
    )
    command = [sys.executable, "-c", program, source, data_dir]
    runs = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)
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
        ("folder/mine", "--source DIR --name mine"),
    ],
)
def test_error_of_an_unprepared_dataset_says_how_to_get_it(data_dir, name, page):
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
    ("name", "known"),
    [
        ("market", "cuhk03_np, dukemtmc_reid, folder, market1501, msmt17, synthetic"),
        ("market1501/train", "there is market1501."),
        ("msmt17", "msmt17/train, msmt17/trainval"),
        ("cuhk03_np/new", "cuhk03_np/labeled, cuhk03_np/detected"),
    ],
)
def test_unknown_name_is_an_error_that_lists_the_known_ones(data_dir, name, known):
    with pytest.raises(InputError, match=f"'{name}'.*{known}"):
        data_prep.prepare_dataset(name, data_dir=data_dir)


def test_locked_directory_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/market1501 .*Not a directory"):
        prepare_partial("market1501", source, tmp_path / "file")


@pytest.mark.parametrize("dash", "-_")
def test_command_prints_splits_and_warns_of_a_partial_copy(source, data_dir, capsys, dash):
    arguments = ["--source", str(source), f"--data{dash}dir", str(data_dir)]
    with pytest.raises(SystemExit, match="train has 4 images of 3 identities, expected 12,936"):
        prepare_main("market1501", arguments)
    prepare_main("market1501", [*arguments, f"--allow{dash}partial"])
    captured = capsys.readouterr()
    assert "Warning: market1501 is partial" in captured.err
    assert re.findall(r"(\w+) +(\d+) images", captured.out) == [
        ("train", "4"),
        ("query", "2"),
        ("gallery", "4"),
    ]
    assert str(data_dir / "market1501" / "1.0.0") in captured.out


def test_command_takes_config_or_name(tmp_path, data_dir):
    arguments = ["--source", str(tmp_path), "--data-dir", str(data_dir)]
    with pytest.raises(SystemExit, match="cuhk03_new_protocol_config_detected"):
        prepare_main("cuhk03_np", [*arguments, "--config", "detected"])
    write_images(tmp_path / "own" / "train", ["1_1.jpg"])
    prepare_main("folder", [*arguments, "--name", "mine"])
    assert (data_dir / "folder" / "mine" / "1.0.0").is_dir()


def test_command_help_has_its_own_options_only(capsys):
    for dataset, options, missing in (
        ("market1501", ["--source SOURCE ", "--data-dir"], ["--config", "--name", "_dir"]),
        ("msmt17", ["--config {train,trainval}"], ["--name"]),
        ("folder", ["--name"], ["--config"]),
        ("synthetic", ["[--source SOURCE]", "--config {tiny,demo,full}"], ["--name"]),
    ):
        with pytest.raises(SystemExit):
            prepare_main(dataset, ["--help"], prog=f"rmgl prepare {dataset}")
        text = capsys.readouterr().out
        assert f"usage: rmgl prepare {dataset} " in text
        assert all(option in text for option in options), dataset
        assert not any(option in text for option in missing), dataset


def test_rmgl_prepare_takes_the_dataset_first(source, data_dir, capsys):
    options = ["--source", str(source), "--data-dir", str(data_dir), "--name", "mine"]
    main(["folder", *options])
    assert (data_dir / "folder" / "mine" / "1.0.0").is_dir()
    for arguments, status in (([], 2), (["market"], 2), (["--help"], 0)):
        with pytest.raises(SystemExit, match=str(status)):
            main(arguments)
        captured = capsys.readouterr()
        assert "usage: rmgl prepare DATASET [OPTIONS]" in captured.out + captured.err
    with pytest.raises(SystemExit, match="0"):
        main(["msmt17", "--help"])
    assert "usage: rmgl prepare msmt17 " in capsys.readouterr().out


def test_command_prints_expected_errors_only(source, data_dir, monkeypatch, capsys):
    arguments = ["--source", str(source), "--data-dir", str(data_dir), "--allow-partial"]
    with pytest.raises(SystemExit, match="Unknown dataset 'market'"):
        prepare_main("market", arguments)
    with monkeypatch.context() as patch:
        interrupt_writing(patch, raise_full_disk)
        with pytest.raises(SystemExit, match="No space left on device"):
            prepare_main("market1501", arguments)
    with monkeypatch.context() as patch:
        interrupt_writing(patch, lambda: [].pop())  # a bug
        with pytest.raises(IndexError):
            prepare_main("market1501", arguments)


@pytest.mark.parametrize("size", [0, 100, 1000, 4096, 16_384])
def test_command_names_the_dataset_that_a_full_disk_has_no_room_for(source, data_dir, size):
    arguments = ["--source", str(source), "--data-dir", str(data_dir), "--allow-partial"]
    directory = data_dir / "market1501" / "1.0.0"
    with full_disk(size), pytest.raises(SystemExit, match=f"{directory} .*too large"):
        prepare_main("market1501", arguments)
    assert prepared_directories(data_dir) == []
    prepare_main("market1501", arguments)
    assert read_labels(data_prep.open_prepared(directory)) == market_labels()


def test_other_commands_name_the_file_that_a_full_disk_has_no_room_for(
    data_dir, tmp_path, monkeypatch
):
    with full_disk(1000), pytest.raises(SystemExit, match=f"{data_dir}.*too large"):
        prepare_main("synthetic", ["--config", "tiny", "--data-dir", str(data_dir)])
    assert not list(data_dir.glob("synthetic_images/*"))
    noise = Image.open(io.BytesIO(image_bytes(0)))
    monkeypatch.setattr(contact_sheet, "contact_sheet", lambda *_: noise)
    monkeypatch.setattr(sys, "argv", ["contact_sheet", str(tmp_path / "sheet.png")])
    with full_disk(1000), pytest.raises(SystemExit, match=f"{tmp_path / 'sheet.png'}: .*too large"):
        contact_sheet.main()
    assert not list(tmp_path.glob("*sheet.png*"))


def test_command_interrupted_exits_with_130(source, data_dir, monkeypatch, capsys):
    interrupt_writing(monkeypatch, raise_keyboard_interrupt)
    arguments = ["--source", str(source), "--data-dir", str(data_dir), "--allow-partial"]
    with pytest.raises(SystemExit, match="130"):
        prepare_main("market1501", arguments)
    assert "market1501: interrupted, nothing was kept" in capsys.readouterr().err
    assert prepared_directories(data_dir) == []


UNGUARDED = """
import sys
import data_prep
print("main")
builder = data_prep.prepare_dataset("folder/mine", sys.argv[1], sys.argv[2])
builder.as_data_source("train")[0]
print(len(data_prep.read_records(builder, "train")))
print(sorted({"jax", "jaxlib", "flax", "torch", "tensorflow"} & set(sys.modules)))
"""


def test_script_without_main_guard_prepares_many_images_without_frameworks(tmp_path):
    # So many that worker processes check them, which must not run the script again.
    encoded = image_bytes(0)
    (tmp_path / "own" / "train").mkdir(parents=True)
    for number in range(1100):
        (tmp_path / "own" / "train" / f"{number}.jpg").write_bytes(encoded)
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "own", tmp_path / "tfds"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout == "main\n1100\n[]\n"
