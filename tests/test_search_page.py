"""The search page: what it shows, finds and refuses."""

import html
import io
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra `gallery` is not installed")
pytest.importorskip("python_multipart", reason="the extra `gallery` is not installed")

from starlette.testclient import TestClient

from rmgl_jax.gallery.access import Access
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.identify import identify
from rmgl_jax.gallery.page import make_app
from tests.gallery_stand_in import ColorGallery, color_entry, stand_in_model

ADDRESS = "http://127.0.0.1:8000"
TOKEN = "a secret of enough characters; with = signs"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def gallery(tmp_path):
    """Four red crops and two blue ones, of three cameras."""
    secret = tmp_path / "secret-directory"
    secret.mkdir()
    return ColorGallery(
        [
            color_entry(secret, (250, 10, 10), "a.png", camera="1", time=NOON, labels=("red",)),
            color_entry(secret, (240, 30, 10), "b.png", camera="2", time=NOON + 3600),
            color_entry(secret, (230, 60, 10), "c.png", camera="2", labels=("red", "hat")),
            color_entry(secret, (220, 90, 10), "d.png"),
            color_entry(secret, (10, 10, 250), "e.png", camera="<b>3</b>", labels=("<i>x</i>",)),
            color_entry(secret, (10, 60, 250), "f.png", camera="1", time=NOON + 7200),
        ]
    )


@pytest.fixture
def client(gallery):
    return client_of(gallery)


def client_of(gallery, **options):
    return TestClient(make_app(gallery, **options), base_url=ADDRESS, follow_redirects=False)


def encoded(rgb, size=(32, 64), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, rgb).save(buffer, kind)
    return buffer.getvalue()


def results(response):
    """Ids of the results on a page, best first."""
    assert response.status_code == 200
    lists = re.findall(r'<ol class="crops".*?</ol>', response.text, re.DOTALL)
    return re.findall(r"/search\?id=(\w+)", "".join(lists))


def upload(client, data, fields=None, **options):
    files = {"image": ("crop.png", data, "image/png")}
    return client.post("/search", files=files, data=fields or {}, **options)


def ids(gallery, names):
    by_name = {Path(entry.path).stem: entry.id for entry in gallery.stored}
    return [by_name[name] for name in names]


def test_upload_finds_the_nearest_in_order(client, gallery):
    expected = ids(gallery, "abcdef")
    assert results(upload(client, encoded((255, 0, 0)))) == expected
    # The bytes decide, not the name or the declared type.
    files = {"image": ("../../etc/passwd.txt", encoded((255, 0, 0), kind="JPEG"), "text/html")}
    assert results(client.post("/search", files=files)) == expected


def test_json_has_scores_and_no_paths(client, gallery):
    found = upload(
        client, encoded((255, 0, 0)), {"top": "10"}, headers={"Accept": "application/json"}
    )
    assert found.headers["content-type"] == "application/json"
    found = found.json()
    assert [item["id"] for item in found] == ids(gallery, "abcdef")
    scores = [item["score"] for item in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1, abs=0.01)
    assert {item["same_person"] for item in found} == {None}
    assert (found[0]["camera"], found[0]["time"], found[0]["labels"]) == ("1", NOON, ["red"])
    assert client.get(found[0]["image"]).status_code == 200
    refused = upload(client, b"", headers={"Accept": "application/json"})
    assert (refused.status_code, list(refused.json())) == (400, ["error"])


def test_each_result_becomes_the_next_query(client, gallery):
    page = upload(client, encoded((0, 0, 255)))
    e, f = ids(gallery, "ef")
    assert set(results(page)[:2]) == {e, f}
    link = html.unescape(re.search(rf'href="(/search\?id={e}[^"]*)"', page.text)[1])
    # The query itself is not among its results.
    assert results(client.get(link)) == ids(gallery, "fabcd")


def test_upload_is_kept_for_other_filters(client, gallery):
    page = upload(client, encoded((255, 0, 0)))
    (name,) = re.findall(r'name="upload" value="([^"]+)"', page.text)
    again = client.get("/search", params={"upload": name, "camera": "1"})
    assert results(again) == ids(gallery, "af")
    assert client.get("/search", params={"upload": name + "x"}).status_code == 404


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"camera": ["1", "2"]}, "abcf"),
        ({"camera": "<b>3</b>"}, "e"),
        ({"labels": "red"}, "ac"),
        ({"labels": " hat ,red,"}, "c"),
        ({"after": "2026-01-31T13:00"}, "bf"),
        ({"before": "2026-01-31T13:00:00"}, "a"),
        ({"after": "2026-01-31T12:30", "before": "2026-01-31T14:00"}, "b"),
        ({"top": "2"}, "ab"),
        ({"labels": "' or 1 == 1 or '\x00"}, ""),
    ],
)
def test_filters_choose_results_and_entries(client, gallery, fields, expected):
    expected = ids(gallery, expected)
    assert results(upload(client, encoded((255, 0, 0)), fields)) == expected
    if "top" not in fields:
        shown = client.get("/", params=fields)
        assert sorted(results(shown)) == sorted(expected)


def test_options_reach_the_search(client, gallery):
    (a,) = ids(gallery, "a")
    params = {"id": a, "rerank": "1", "expand": "1", "other_cameras": "1", "top": "20"}
    # The query's camera is 1.
    assert results(client.get("/search", params=params)) == ids(gallery, "edcb")
    assert gallery.calls[-1]["rerank"] is True
    assert gallery.calls[-1]["expand"] is True
    assert gallery.calls[-1]["filters"].not_cameras == ("1",)
    client.get("/search", params={"id": a})
    assert gallery.calls[-1]["rerank"] is False
    assert gallery.calls[-1]["filters"].not_cameras == ()


def test_links_and_fields_keep_the_form(client, gallery):
    fields = {"camera": ["1", "2"], "after": "2026-01-31T11:00:00", "rerank": "1", "top": "50"}
    page = upload(client, encoded((255, 0, 0)), fields)
    link = html.unescape(re.search(r'href="(/search\?id=[^"]*)"', page.text)[1])
    client.get(link)
    first, second = gallery.calls[-2:]
    # An entry is found by itself, so that one more is asked for.
    assert second == {**first, "top": 51}
    assert re.search(r'name="camera" value="1" checked', page.text)
    assert re.search(r'name="after" step="1" value="2026-01-31T11:00:00"', page.text)
    assert re.search(r"<option selected>50", page.text)


def test_threshold_divides_the_results(gallery):
    gallery.model = stand_in_model(0.95)
    page = upload(client_of(gallery), encoded((255, 0, 0)))
    same, below = re.findall(r'<ol class="crops" start="(\d+)">(.*?)</ol>', page.text, re.DOTALL)
    count = len(re.findall("<li", same[1]))
    scores = [float(text) for text in re.findall(r"<b>(-?[\d.]+)</b>", page.text)]
    assert count == sum(score > 0.95 for score in scores) > 1
    assert (same[0], below[0]) == ("1", str(count + 1))
    assert page.text.count('class="match"') == count
    headers = {"Accept": "application/json"}
    listed = upload(client_of(gallery), encoded((255, 0, 0)), headers=headers).json()
    assert [item["same_person"] for item in listed] == [score > 0.95 for score in scores]


def test_threshold_of_another_embedding_is_not_marked(gallery):
    gallery.model = stand_in_model(0.95)
    gallery.settings = SimpleNamespace(digest="another", flip=True)
    headers = {"Accept": "application/json"}
    found = upload(client_of(gallery), encoded((255, 0, 0)), headers=headers).json()
    assert {item["same_person"] for item in found} == {None}


def test_threshold_is_marked_on_each_result_of_a_changed_order(gallery):
    gallery.model = stand_in_model(0.95)
    page = upload(client_of(gallery), encoded((255, 0, 0)), {"rerank": "1"})
    (only,) = re.findall(r'<ol class="crops" start="1">(.*?)</ol>', page.text, re.DOTALL)
    marks = ["match" in item for item in re.findall(r"<li[^>]*>", only)]
    assert marks == sorted(marks)
    assert 1 < sum(marks) < len(marks)


def test_entries_are_paged(gallery, tmp_path):
    many = [color_entry(tmp_path, (i, 9, 99), f"{i}.png", camera="1") for i in range(60)]
    client = client_of(ColorGallery(many))
    pages = [client.get("/"), client.get("/?page=2&camera=1"), client.get("/?page=3")]
    listed = [re.findall(r"/search\?id=(\w+)", page.text) for page in pages]
    assert [len(found) for found in listed] == [48, 12, 0]
    assert listed[0] + listed[1] == [entry.id for entry in many]
    assert 'rel="next"' in pages[0].text
    assert 'rel="prev"' not in pages[0].text
    assert 'rel="next"' not in pages[1].text
    assert '/?camera=1"' in pages[1].text  # the page before keeps the filters


def test_pictures_are_small_and_without_metadata(gallery, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "private note"
    noise = np.random.default_rng(0).integers(0, 256, (2000, 900, 3), np.uint8)
    frame = tmp_path / "frame.jpg"
    Image.fromarray(noise).save(frame, exif=exif, comment=b"private note")
    entry = identify(Crop(frame, (100, 100, 800, 1900)))
    gallery.stored.append(entry)
    response = client_of(gallery).get(f"/image/{entry.id}")
    assert response.headers["content-type"] == "image/jpeg"
    assert b"private note" not in response.content
    with Image.open(io.BytesIO(response.content)) as image:
        assert max(image.size) <= 640
        assert image.width / image.height == pytest.approx(700 / 1800, abs=0.01)


def test_missing_damaged_and_replaced_files_have_a_placeholder(client, gallery):
    a, b, c = ids(gallery, "abc")
    Path(gallery.stored[0].path).unlink()
    Path(gallery.stored[1].path).write_bytes(b"no image")
    # Another image under the name of the one that was added.
    Path(gallery.stored[2].path).write_bytes(encoded((1, 2, 3)))
    for id in (a, b, c):
        response = client.get(f"/image/{id}")
        assert (response.status_code, response.headers["content-type"]) == (404, "image/svg+xml")
    for page in (client.get("/"), client.get("/search", params={"id": a})):
        assert page.status_code == 200
        assert f'src="/image/{a}"' not in page.text
        assert 'class="missing"' in page.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/search?id=00112233445566778899aabbccddeeff", 404),
        ("/search?id=../../etc/passwd", 404),
        ("/search?id=%22%20or%20id%20!=%20%22", 404),
        ("/image/00112233445566778899aabbccddeeff", 404),
        ("/image/..%2f..%2fetc%2fpasswd", 404),
        ("/image/%2e%2e", 404),
        ("/nothing", 404),
        ("/?camera=9", 400),
        ("/?page=0", 400),
        ("/?page=-1", 400),
        ("/?page=%D9%A3", 400),
        ("/?page=" + "9" * 150, 400),
        ("/?after=yesterday", 400),
        ("/?after=2026-01-31T12:00%2B14:00", 400),
        ("/?after=2026-02-01T00:00&before=2026-01-01T00:00", 400),
        ("/?labels=" + "x" * 201, 400),
        ("/search?id=aa&top=101", 400),
        ("/search", 303),
    ],
)
def test_wrong_addresses_are_refused_with_a_page(client, path, status):
    response = client.get(path)
    assert response.status_code == status
    if status != 303:
        (sentence,) = re.findall(r'role="alert">([^<]+)</p>', response.text)
        assert sentence.endswith(".")
    assert "/secret/" not in response.text


def test_no_page_names_a_path_or_passes_markup_on(client, gallery):
    a, e = ids(gallery, "ae")
    Path(gallery.stored[3].path).unlink()
    pages = [
        client.get("/"),
        client.get("/?labels=<script>alert(1)</script>&camera=<b>3</b>"),
        client.get(f"/search?id={e}"),
        client.get(f"/search?id={a}&labels=%22%3E%3Cscript%3E"),
        upload(client, encoded((255, 0, 0)), {"labels": '"><script>'}),
        client.get("/?camera=<script>"),
        client.get("/<script>alert(1)</script>"),
    ]
    for page in pages:
        assert "secret-directory" not in page.text
        for markup in ("<script", "<b>3", "<i>x"):
            assert markup not in page.text
    assert "&lt;b&gt;3&lt;/b&gt;" in pages[0].text


def test_errors_of_the_gallery_stay_in_the_terminal(gallery, caplog):
    def fail(*_args, **_options):
        raise WRONG

    from data_prep.errors import InputError

    WRONG = InputError("/secret-directory/gallery is damaged.")
    gallery.search = fail
    response = upload(client_of(gallery), encoded((255, 0, 0)))
    assert response.status_code == 503
    assert "secret-directory" not in response.text
    assert str(WRONG) in caplog.text


def test_bugs_show_no_traceback(gallery):
    def fail(*_args, **_options):
        raise RuntimeError("secret-directory")

    gallery.search = fail
    app = make_app(gallery)
    client = TestClient(app, base_url=ADDRESS, raise_server_exceptions=False)
    response = upload(client, encoded((255, 0, 0)))
    assert response.status_code == 500
    assert "secret-directory" not in response.text
    assert "Content-Security-Policy" in response.headers


def test_every_response_has_the_security_headers(client, gallery):
    (a,) = ids(gallery, "a")
    for path in ("/", f"/search?id={a}", f"/image/{a}", "/style.css", "/nothing", "/?page=0"):
        headers = client.get(path).headers
        assert "script-src" not in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.0.7", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_only_own_host_names_are_answered(client, gallery, host, is_served):
    response = client.get("/", headers={"Host": host})
    assert (response.status_code == 200) == is_served
    assert (ids(gallery, "a")[0] in response.text) == is_served


@pytest.mark.parametrize(
    ("headers", "is_served"),
    [
        ({}, True),
        ({"Origin": ADDRESS}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": ADDRESS}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:9000"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_forms_of_other_sites_are_refused(client, gallery, headers, is_served):
    response = upload(client, encoded((255, 0, 0)), headers=headers)
    assert response.status_code == (200 if is_served else 403)
    assert bool(gallery.calls) == is_served


def test_token_opens_the_gallery_once_and_for_all(gallery):
    client = client_of(gallery, token=TOKEN)
    for path in ("/", f"/image/{gallery.stored[0].id}", "/?token=wrong", "/?token="):
        refused = client.get(path)
        assert refused.status_code == 401
        assert gallery.stored[0].id not in refused.text
    assert client.get("/", headers={"Cookie": f"rmgl_gallery={TOKEN}"}).status_code == 401
    assert upload(client, encoded((255, 0, 0))).status_code == 401
    assert client.get("/style.css").status_code == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/", headers=bearer).status_code == 200
    assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401

    opened = client.get("/", params={"token": TOKEN})
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    assert upload(client, encoded((255, 0, 0))).status_code == 200


def test_token_opens_addresses_but_not_other_names(gallery):
    client = client_of(gallery, token=TOKEN, names={"box.example", "MyDesktop"})
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    own = "192.168.0.7:8000", "box.example", "MyDesktop:8000", "mydesktop"
    for host, status in (*((name, 200) for name in own), ("evil.example", 421)):
        assert client.get("/", headers={"Host": host, **bearer}).status_code == status


def test_searches_wait_for_each_other_but_pages_of_errors_do_not(gallery):
    """Ten uploads at once are searched one by one, while other requests are answered."""
    running, most = 0, 0
    free = threading.Event()
    search = gallery.search

    def slow(*args, **options):
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert free.wait(30)
        running -= 1
        return search(*args, **options)

    gallery.search = slow
    with TestClient(make_app(gallery), base_url=ADDRESS) as client:
        statuses = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(upload(client, encoded((255, 0, 0))).status_code)
            )
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        assert client.get("/style.css").status_code == 200
        assert client.get(f"/image/{gallery.stored[0].id}").status_code == 200
        free.set()
        for thread in threads:
            thread.join(30)
    assert statuses == [200] * 10
    assert most == 1


def test_unusual_shapes_are_accepted_with_a_note(client):
    usual, wide = (upload(client, encoded((255, 0, 0), size)) for size in ((32, 64), (64, 32)))
    assert 'class="note warning"' not in usual.text
    assert 'class="note warning"' in wide.text
    assert wide.status_code == 200


def test_gallery_without_entries_says_so(gallery):
    gallery.stored, gallery.embeddings = [], np.zeros((0, 3))
    client = client_of(gallery)
    assert "rmgl gallery add" in client.get("/").text
    assert results(upload(client, encoded((255, 0, 0)))) == []


def test_other_protocols_pass_through():
    """Servers start and end an application by the lifespan protocol."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    import anyio

    anyio.run(Access(app, None, None, ()), {"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
