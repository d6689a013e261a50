"""A run directory belongs to the data that its run began with."""

import json
from dataclasses import replace

import pytest

from data_prep.errors import InputError, WriteError
from rmgl_jax.training.run_data import (
    DATA_NAME,
    DataChangedError,
    describe_data,
    init_run_data,
    read_run_data,
)
from tests.flipped_bits import assert_flips_are_noticed
from tests.tiny_run import tiny_split

TRAIN = replace(tiny_split(), digest="a" * 64)
QUERY = replace(TRAIN, split="query", digest="b" * 64)


def test_init_run_data_records_the_digest_of_every_split(tmp_path):
    assert read_run_data(tmp_path) == {}
    init_run_data(tmp_path, [TRAIN, QUERY])
    before = (tmp_path / DATA_NAME).stat()
    assert read_run_data(tmp_path) == {
        "dataset": "tiny",
        "version": "1.0.0",
        "train": "a" * 16,
        "query": "b" * 16,
    }
    init_run_data(tmp_path, [TRAIN, QUERY])
    assert (tmp_path / DATA_NAME).stat() == before


@pytest.mark.parametrize(
    ("splits", "named"),
    [
        ([replace(TRAIN, digest="c" * 64), QUERY], f"train was {'a' * 16}, is now {'c' * 16}"),
        ([TRAIN, replace(QUERY, digest="c" * 64)], f"query was {'b' * 16}, is now {'c' * 16}"),
        ([TRAIN], f"query was {'b' * 16}, is now None"),
        ([replace(TRAIN, version="2.0.0"), QUERY], "version was 1.0.0, is now 2.0.0"),
    ],
)
def test_init_run_data_refuses_other_data_and_names_both_digests(splits, named, tmp_path):
    init_run_data(tmp_path, [TRAIN, QUERY])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataChangedError, match=f"{tmp_path} .*: {named}\\."):
        init_run_data(tmp_path, splits)
    assert read_run_data(tmp_path)["train"] == "a" * 16


def test_data_of_a_run_that_has_not_begun_are_replaced(tmp_path):
    init_run_data(tmp_path, [replace(TRAIN, digest="c" * 64), QUERY])
    init_run_data(tmp_path, [TRAIN, QUERY])
    assert read_run_data(tmp_path)["train"] == "a" * 16


def test_flipped_bit_of_the_record_is_noticed(tmp_path):
    init_run_data(tmp_path, [TRAIN, QUERY])
    content, expected = (tmp_path / DATA_NAME).read_bytes(), read_run_data(tmp_path)

    def read(path):
        path.rename(tmp_path / DATA_NAME)
        init_run_data(tmp_path, [TRAIN, QUERY])
        return read_run_data(tmp_path)

    assert_flips_are_noticed(content, read, expected)


def test_record_of_an_earlier_version_without_a_digest_is_read(tmp_path):
    (tmp_path / DATA_NAME).write_text(json.dumps(describe_data([TRAIN, QUERY])))
    init_run_data(tmp_path, [TRAIN, QUERY])
    assert read_run_data(tmp_path)["train"] == "a" * 16


@pytest.mark.parametrize("content", ["{", "[1]", "\0"])
def test_damaged_record_is_refused_and_kept(content, tmp_path):
    (tmp_path / DATA_NAME).write_text(content)
    with pytest.raises(InputError, match=r"data\.json is damaged: "):
        init_run_data(tmp_path, [TRAIN])
    assert (tmp_path / DATA_NAME).read_text() == content


def test_init_run_data_says_why_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file/data\.json .*(File exists|Not a directory)"):
        init_run_data(tmp_path / "file", [TRAIN])
