"""A gallery on a Milvus server answers as one in a directory does.

The server is that of the package `milvus` (2.3.5), installed here or in another environment, whose
`milvus-server` is then named by the variable MILVUS_SERVER. Its ports are open to other machines
while the tests run: this version does not bind to one address.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.gallery.entries import Filters
from rmgl_jax.gallery.gallery import Gallery
from tests.tiny_gallery import MODEL, make_model, write_crops

pytest.importorskip("pymilvus", reason="the extra gallery is not installed")
pytest.importorskip("milvus_lite", reason="the extra gallery is not installed")
SERVER = os.environ.get("MILVUS_SERVER") or shutil.which("milvus-server")
pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(SERVER is None, reason="the package milvus (a server) is not installed"),
]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL of a new server."""
    directory, port = tmp_path_factory.mktemp("milvus"), free_port()
    process = subprocess.Popen(
        [SERVER, "--data", str(directory), "--proxy-port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 180
        while True:
            try:
                with pytest.raises(MissingFileError):
                    Gallery.open(url)
                break
            except InputError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < end, "the server did not start"
                time.sleep(1)
        yield url
    finally:
        # The server is a child of the process that was started.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return write_crops(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def galleries(server, crops, tmp_path_factory):
    """The same crops in a directory and on the server."""
    directory = tmp_path_factory.mktemp("galleries") / "lite"
    with (
        Gallery.open(directory, MODEL, create=True) as lite,
        Gallery.open(server, MODEL, create=True) as remote,
    ):
        many = [*crops, replace(crops[0], box=(2, 3, 20, 40))]
        assert lite.add(many) == remote.add(many)
        assert lite.add(many) == remote.add(many)
        yield lite, remote


FILTERS = [
    Filters(),
    Filters(cameras=("0", "2")),
    Filters(not_cameras=("0",), after=3.5, before=20.0),
    Filters(labels=("third",)),
    Filters(cameras=('"] or camera in ["1',)),
]


@pytest.mark.parametrize("filters", FILTERS)
def test_server_and_directory_find_the_same(galleries, crops, filters):
    lite, remote = galleries
    for query in (crops[0], lite.embedding(lite.ids_of(crops[9].path)[0])):
        for options in ({}, {"rerank": True}, {"expand": True}):
            expected = lite.search(query, 31, filters, **options)
            found = remote.search(query, 31, filters, **options)
            assert [match.entry for match in found] == [match.entry for match in expected]
            scores = [match.score for match in found]
            np.testing.assert_allclose(scores, [m.score for m in expected], atol=1e-6)
    assert remote.entries(filters) == lite.entries(filters)
    assert list(remote.scan(filters)) == list(lite.scan(filters))


def test_server_and_directory_agree_on_the_rest(galleries, crops):
    lite, remote = galleries
    assert len(remote) == len(lite) == 31
    assert remote.cameras() == lite.cameras()
    assert remote.entries(offset=9, limit=5) == lite.entries(offset=9, limit=5)
    assert remote.ids_of(crops[0].path) == lite.ids_of(crops[0].path)
    (id,) = lite.ids_of(crops[5].path)
    np.testing.assert_allclose(remote.embedding(id), lite.embedding(id), atol=1e-7)
    for gallery in galleries:
        assert gallery.remove([id]) == 1
        assert gallery.ids_of(crops[5].path) == []
        assert gallery.add(crops).added == 1
        with pytest.raises(InputError, match="f" * 32):
            gallery.entry("f" * 32)


def test_server_keeps_the_settings(galleries, server, crops):
    _, remote = galleries
    with Gallery.open(server) as gallery:
        assert gallery.settings == remote.settings
        assert len(gallery) == 31
        with pytest.raises(InputError, match="model"):
            gallery.search(crops[0])
    other = make_model(seed=1)
    with pytest.raises(InputError, match=other.digest[:12]):
        Gallery.open(server, other)
    with pytest.raises(InputError, match="dim None, not 4"):
        Gallery.open(server, dim=4)


def test_server_has_an_approximate_index(server, crops):
    with Gallery.open(server, MODEL, create=True, index="hnsw", name="graph") as gallery:
        gallery.add(crops)
        assert gallery.recall(5, queries=30) > 0.95
