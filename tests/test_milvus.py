"""Rows of a collection in Milvus Lite: they last, and filters mean what they say."""

import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import InputError
from rmgl_jax.gallery.collection import open_collection
from rmgl_jax.gallery.entries import Entry, Filters
from rmgl_jax.gallery.milvus import connect, disconnect
from tests.killed_collection import BATCH, WIDTH, reopen, rows

pytest.importorskip("pymilvus", reason="the extra gallery is not installed")
pytest.importorskip("milvus_lite", reason="the extra gallery is not installed")

# Texts that would change an expression if they were pasted into it.
HOSTILE = [
    "",
    '"',
    "'",
    "\\",
    '\\"',
    '" or camera != "',
    '"] or (id > "',
    "{camera}",
    "$meta",
    "%",
    "a\nb",
    "\\n",
    "\r\t\x00\x1b\x7f",
    "日本\U0001f600",
    "\u2028",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A collection with a row for each hostile text, in its path, camera and labels."""
    location = str(tmp_path_factory.mktemp("a \"b' ü"))
    client = connect(location)
    collection = open_collection(client, location, "rows", "exact", 2, "")
    entries = [
        Entry(f"{number:032x}", f"/{text}", (1, 2, 3, number), text, None, (text, "all"))
        for number, text in enumerate(HOSTILE)
    ]
    collection.upsert(entries, np.eye(2, dtype=np.float32)[[0] * len(entries)])
    yield collection, entries
    disconnect(client, location)


def test_boxes_with_fractions_are_read_and_removed(tmp_path):
    client = connect(str(tmp_path))
    collection = open_collection(client, str(tmp_path), "rows", "exact", 2, "")
    entry = Entry("0" * 32, "/a.png", (1.0, 2.0, 30.4, 80.0), "", None, ())
    collection.upsert([entry], np.eye(2, dtype=np.float32)[:1])
    assert [found.box for found in collection.scan(Filters())] == [(1, 2, 30, 80)]
    collection.delete([entry.id])
    assert len(collection) == 0
    disconnect(client, str(tmp_path))


def test_rows_are_read_as_they_were_written(hostile):
    collection, entries = hostile
    assert list(collection.scan(Filters())) == entries
    assert collection.cameras() == sorted(set(HOSTILE) - {""})


@pytest.mark.parametrize("text", HOSTILE)
def test_filters_take_texts_as_they_are(hostile, text):
    collection, entries = hostile
    (expected,) = [entry for entry in entries if entry.camera == text]
    others = [entry for entry in entries if entry != expected]
    assert collection.page(Filters(cameras=(text,)), 0, 99) == [expected]
    assert collection.page(Filters(labels=("all", text)), 0, 99) == [expected]
    assert collection.page(Filters(not_cameras=(text,)), 0, 99) == others
    assert collection.ids_of(f"/{text}") == [expected.id]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_filters_never_find_more_than_their_text(hostile, text):
    collection, entries = hostile
    found = collection.page(Filters(cameras=(text,)), 0, 99)
    assert found == [entry for entry in entries if entry.camera == text]


def test_filters_refuse_what_is_no_text_or_time():
    for options in ({"cameras": ("\udcff",)}, {"after": float("nan")}, {"before": float("inf")}):
        with pytest.raises(InputError):
            Filters(**options)


def test_server_that_ends_is_named(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    # Milvus Lite in a process of its own stands in for a server.
    program = (
        "from milvus_lite.adapter.grpc.server import run_server\n"
        f"run_server({str(tmp_path)!r}, host='127.0.0.1', port={port})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert str(port) in server.stdout.readline()
            client = connect(url)
            collection = open_collection(client, url, "rows", "exact", WIDTH, "")
            collection.upsert(*rows(0))
            assert len(collection) == BATCH
        finally:
            server.kill()
    for use in (lambda: len(collection), lambda: collection.upsert(*rows(1))):
        with pytest.raises(InputError, match=url):
            use()
    disconnect(client, url)


def test_copies_that_a_kill_left_are_removed(tmp_path):
    (tmp_path / "rows").mkdir()
    location = str(tmp_path / "rows")
    client = connect(location)
    collection = open_collection(client, location, "rows", "exact", WIDTH, "")
    collection.upsert(*rows(0))
    log = next(Path(location).rglob("wal"))
    shutil.copytree(log, tmp_path / "log")
    disconnect(client, location)
    # As if the process had been killed after it wrote the segment, before it deleted the log.
    shutil.copytree(tmp_path / "log", log, dirs_exist_ok=True)
    for copies_are_there in (True, False):
        client = connect(location)
        collection = open_collection(client, location, "rows", "exact", WIDTH, "")
        assert (len(collection) == 2 * BATCH) == copies_are_there
        collection.remove_copies()
        assert len(collection) == BATCH
        assert list(collection.scan(Filters())) == rows(0)[0]
        (found,) = collection.nearest(rows(0)[1][:1], 99, Filters())
        assert sorted(entry.id for entry, _ in found) == [entry.id for entry in rows(0)[0]]
        disconnect(client, location)


@pytest.mark.parametrize("seed", range(3))
def test_rows_survive_kills(tmp_path, seed):
    location = str(tmp_path)
    delays = random.Random(seed)
    acknowledged = 0
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.killed_collection", location],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            for _ in range(delays.randrange(1, 20)):
                acknowledged = int(writer.stdout.readline())
            time.sleep(delays.uniform(0, 0.02))
            writer.kill()
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    collection = reopen(location)
    found = list(collection.scan(Filters()))
    expected = [entry for first in range(0, len(found), BATCH) for entry in rows(first)[0]]
    assert len(found) == len(collection) >= acknowledged > 0
    assert found == expected[: len(found)]
    embeddings = collection.embeddings([entry.id for entry in found[:BATCH]])
    np.testing.assert_allclose(list(embeddings.values()), rows(0)[1], atol=1e-6)
    disconnect(collection.client, location)
