import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.names import find_camera, is_image_name, parse_market_name, parse_own_name


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1)),
        ("-1_c3s2_000018_02.jpg", (-1, 3)),
        ("0000_c6s1_000001_00.jpg.jpg", (0, 6)),
        ("0001_c2_f0046182.jpg", (1, 2)),
        ("0042_c12s3_000001_00.JPG", (42, 12)),
        ("1501_C5S1_000001_00.png", (1501, 5)),
    ],
)
def test_parsers_read_market_names(name, label):
    assert parse_market_name(name) == label
    assert parse_own_name(name) == label


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "c1_0002.jpg", "0002.jpg", "_c1.jpg", "12_camera.jpg"]
)
def test_parse_market_name_refuses_other_forms(name):
    assert parse_market_name(name) is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("7.png", (7, None)),
        ("0007_12.jpg", (7, None)),
        ("0007_cam3_12.jpg", (7, 3)),
        ("7_c0.jpg", (7, 0)),
        ("0007-a.jpg", (7, None)),
        ("0007_15_c2.jpg", (7, 2)),
        ("7_000151_cam3.png", (7, 3)),
        ("0007-c2-15.jpg", (7, 2)),
        ("-1_15_C2s1.jpg", (-1, 2)),
        ("7_c2 (1).jpg", (7, 2)),
        ("7_c2f3.jpg", (7, 2)),
        ("15(c2).jpg", (15, 2)),
        ("7_15c2.jpg", (7, None)),
        ("alice_1.jpg", None),
        ("7a.jpg", None),
    ],
)
def test_parse_own_name_reads_own_forms(name, label):
    assert parse_own_name(name) == label


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("c3_0001.jpg", 3),
        ("shop_cam12_17.png", 12),
        ("0001_c1s4_000451.jpg", 1),
        ("0001-C2.JPG", 2),
        ("15.c2.jpg", 2),
        ("img c2.jpg", 2),
        ("15(cam2)_c3.jpg", 2),
        ("15_c2f3.jpg", 2),
        ("15_c2s1f3.jpg", 2),
        ("15c2.jpg", None),
        ("3b1d-4c21-9f.jpg", None),
        ("c2a.jpg", None),
        ("éc2.jpg", None),
        ("abc3_1.jpg", None),
        ("color_1.jpg", None),
        ("c3po.jpg", None),
        ("0001_17.jpg", None),
    ],
)
def test_find_camera_in_names_of_any_form(name, camera):
    assert find_camera(name) == camera


@pytest.mark.parametrize("name", ["a.jpg", "a.jpg.jpg", "a.JPEG", "a.Png", "a.bmp", "a.webp"])
def test_is_image_name_accepts_images(name):
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["Thumbs.db", "._a.jpg", ".jpg", "a.txt", "a.jpg.part", "jpg"])
def test_is_image_name_refuses_others(name):
    assert not is_image_name(name)


@given(st.integers(-1, 99_999), st.integers(0, 99), st.integers(1, 9), st.integers(0, 10**6))
def test_parse_market_name_returns_the_numbers_of_any_name(pid, camera, sequence, frame):
    assert parse_market_name(f"{pid:04d}_c{camera}s{sequence}_{frame:06d}_01.jpg") == (pid, camera)


@given(st.text(alphabet="0127-_cCsam.jpgé \n", max_size=30))
def test_parsers_accept_any_text(name):
    market, own = parse_market_name(name), parse_own_name(name)
    if market is not None:
        assert re.match(r"-?\d+_[cC]\d", name)
    if own is not None and own.camera is not None:
        assert find_camera(name) is not None
