"""`rmgl gallery serve` and its page on a real gallery."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from data_prep.errors import InputError
from rmgl_jax.gallery.serve_command import ServeOptions, check_options, listen
from tests.tiny_gallery import MODEL, write_crops

pytest.importorskip("pymilvus", reason="the extra `gallery` is not installed")
pytest.importorskip("milvus_lite", reason="the extra `gallery` is not installed")
pytest.importorskip("starlette", reason="the extra `gallery` is not installed")
pytest.importorskip("uvicorn", reason="the extra `gallery` is not installed")
pytest.importorskip("python_multipart", reason="the extra `gallery` is not installed")

from starlette.testclient import TestClient

from rmgl_jax.gallery.gallery import Gallery
from rmgl_jax.gallery.page import make_app

pytestmark = pytest.mark.network
LOCAL = ServeOptions("somewhere")


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return write_crops(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory, crops):
    directory = tmp_path_factory.mktemp("served") / "gallery"
    with Gallery.open(directory, MODEL, create=True) as gallery:
        gallery.add(crops)
    return directory


def test_page_finds_what_the_gallery_finds(directory, crops):
    headers = {"Accept": "application/json"}
    image = crops[4].path
    with (
        Gallery.open(directory) as gallery,
        TestClient(make_app(gallery), base_url="http://127.0.0.1") as client,
    ):

        def assert_found(response, matches):
            assert response.status_code == 200
            found = [(item["id"], item["score"]) for item in response.json()]
            # The network of an upload is compiled for one image, as that of the search is.
            expected = [(match.entry.id, pytest.approx(match.score, abs=1e-6)) for match in matches]
            assert found == expected

        files = {"image": ("crop.png", image.read_bytes(), "image/png")}
        for fields in ({}, {"rerank": "1"}, {"expand": "1"}, {"rerank": "1", "expand": "1"}):
            options = {name: True for name in fields}
            response = client.post("/search", files=files, data=fields, headers=headers)
            assert_found(response, gallery.search(image, 20, **options))
        best = gallery.search(image, 30)
        assert best[0].score == pytest.approx(1, abs=1e-5)
        id = best[0].entry.id
        assert_found(client.get("/search", params={"id": id}, headers=headers), best[1:21])
        page = client.get("/search", params={"id": id, "camera": ["0", "2"], "labels": "third"})
        assert page.text.count("<li>") == 10
        entry = client.get(f"/image/{id}")
        assert entry.headers["content-type"] == "image/jpeg"
        assert client.get("/").text.count("<li>") == 30
        assert client.get("/search?id=" + "0" * 32).status_code == 404
        text = "".join(response.text for response in (page, client.get("/")))
        assert str(directory.parent) not in text
        assert str(image.parent) not in text


@contextlib.contextmanager
def served(*arguments):
    """Runs the command until it has printed its address; ends it as Ctrl-C does."""
    command = [sys.executable, "-m", "rmgl_jax", "gallery", "serve", *map(str, arguments)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+", line)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_command_serves_until_it_is_interrupted(directory, crops):
    with served(directory, "--port", "0") as address:
        with urllib.request.urlopen(address) as page:
            assert b"30 crops" in page.read()
        boundary = "cut"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        body = head.encode() + crops[0].path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Accept": "application/json",
        }
        request = urllib.request.Request(f"{address}/search", body, headers)
        with urllib.request.urlopen(request) as response:
            assert json.load(response)[0]["score"] == pytest.approx(1, abs=1e-5)
        rebound = urllib.request.Request(address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(rebound)
        assert refused.value.code == 421
        refused.value.close()
        port = int(address.rpartition(":")[2])
        with pytest.raises(InputError, match=str(port)):
            listen("127.0.0.1", port)


@pytest.mark.parametrize(
    "options",
    [
        replace(LOCAL, host="0.0.0.0"),
        replace(LOCAL, host="::"),
        replace(LOCAL, host="192.168.0.7"),
        replace(LOCAL, host=""),
        replace(LOCAL, host="127.0.0.1.evil.example"),
        replace(LOCAL, host="0.0.0.0", token="short"),
        replace(LOCAL, token=""),
        replace(LOCAL, port=-1),
        replace(LOCAL, port=65536),
    ],
)
def test_open_servers_without_a_token_are_refused(options):
    with pytest.raises(InputError):
        check_options(options)


def test_safe_options_are_accepted():
    check_options(LOCAL)
    check_options(replace(LOCAL, host="::1", port=0))
    check_options(replace(LOCAL, host="0.0.0.0", token="x" * 16))


def test_listen_names_an_address_that_is_not_there():
    with pytest.raises(InputError, match=r"203\.0\.113\.7"):
        listen("203.0.113.7", 0)
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert listener.family == socket.AF_INET
