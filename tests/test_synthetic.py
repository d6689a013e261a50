import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.errors import InputError
from data_prep.names import parse_market_name
from data_prep.synthetic import layout, render
from data_prep.synthetic.body import Mesh, person_mesh, tube
from data_prep.synthetic.camera import CAMERAS, Box, draw_mesh, view
from data_prep.synthetic.detector import detect, detect_junk, tight_box
from data_prep.synthetic.layout import PRESETS, Preset, Shot, shots, split_total
from data_prep.synthetic.person import CLOTHES, family_of, make_person
from data_prep.synthetic.pose import draw_pose, skeleton
from data_prep.synthetic.streams import stream

pytestmark = pytest.mark.network


def read_all(directory):
    files = sorted(directory.rglob("*.jpg"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return render.render(tmp_path_factory.mktemp("synthetic") / "tiny", "tiny", 0, processes=1)


def test_render_writes_market_sized_jpegs_of_the_layout(tiny):
    files = read_all(tiny)
    assert set(files) == {shot.path for shot in shots(PRESETS["tiny"], 0)}
    assert {path.name for path in tiny.iterdir()} == set(render.FOLDERS)
    for name in files:
        with Image.open(tiny / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))


def test_render_gives_the_same_bytes_with_several_processes(tiny, tmp_path):
    again = render.render(tmp_path / "again", "tiny", 0, processes=2)
    assert read_all(again) == read_all(tiny)


def test_image_does_not_depend_on_the_other_images(tiny, tmp_path):
    shot = shots(PRESETS["tiny"], 0)[37]
    (tmp_path / shot.folder).mkdir()
    render.write_images(tmp_path, 0, [shot])
    assert (tmp_path / shot.path).read_bytes() == (tiny / shot.path).read_bytes()


def test_render_image_depends_on_every_part_of_the_key():
    shot = Shot("query", pid=3, camera=2, index=0, person=3)
    image = render.render_image(0, shot)
    others = [
        render.render_image(1, shot),
        render.render_image(0, replace(shot, index=1)),
        render.render_image(0, replace(shot, camera=4)),
        render.render_image(0, replace(shot, pid=4, person=4)),
    ]
    assert all((image != other).mean() > 0.5 for other in others)


@pytest.mark.parametrize(
    ("preset", "train", "query", "gallery"),
    [
        ("tiny", (16, 64), (8, 20), (8, 36, 6, 4)),
        ("demo", (140, 1120), (50, 150), (50, 450, 150, 130)),
        ("full", (751, 12_936), (750, 3_368), (750, 13_115, 2_798, 3_819)),
    ],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_shots_have_the_counts_and_names_of_every_preset(preset, train, query, gallery, seed):
    plan = shots(PRESETS[preset], seed)
    assert len({shot.path for shot in plan}) == len(plan) == PRESETS[preset].total
    # The key of an image is never used twice: no query is in the gallery.
    assert len({(shot.pid, shot.camera, shot.index) for shot in plan}) == len(plan)
    labels = {folder: [] for folder in render.FOLDERS}
    for shot in plan:
        name = Path(shot.path).name
        label = parse_market_name(name)
        assert (label.pid, label.camera) == (shot.pid, shot.camera)
        assert len(name) == len("0002_c1s1_000451_03.jpg") - 2 * (shot.pid < 0)
        labels[shot.folder].append((label.pid, label.camera))
    train_labels, query_labels, gallery_labels = (labels[folder] for folder in render.FOLDERS)

    train_ids, query_ids = ({pid for pid, _ in part} for part in (train_labels, query_labels))
    gallery_counts = Counter(pid for pid, _ in gallery_labels)
    distractors, junk = gallery_counts.pop(0, 0), gallery_counts.pop(-1, 0)
    assert (len(train_ids), len(train_labels)) == train
    assert (len(query_ids), len(query_labels)) == query
    assert (len(gallery_counts), gallery_counts.total(), distractors, junk) == gallery
    assert min(train_ids | query_ids) > 0
    assert query_ids == set(gallery_counts)
    assert not train_ids & query_ids
    assert {camera for part in labels.values() for _, camera in part} == set(range(1, 7))

    seen_by = {}
    for pid, camera in gallery_labels:
        seen_by.setdefault(pid, set()).add(camera)
    assert all(seen_by[pid] - {camera} for pid, camera in query_labels)
    assert len(set(query_labels)) == len(query_labels)  # one query for each identity and camera
    train_cameras = {}
    for pid, camera in train_labels:
        train_cameras.setdefault(pid, set()).add(camera)
    assert min(len(cameras) for cameras in train_cameras.values()) >= 2


def test_twins_share_coarse_attributes_and_differ_in_fine_ones():
    for pid in range(1, 200):
        person, following = make_person(0, pid), make_person(0, pid + 1)
        if family_of(pid)[0] == family_of(pid + 1)[0]:
            assert person.look == following.look
            assert person.details.shoe_color != following.details.shoe_color
            assert person.details.print_shape != following.details.print_shape
            assert person.details.print_color != following.details.print_color
        else:
            assert person.look != following.look
    twins = [pid for pid in range(1, 201) if family_of(pid)[0] == family_of(pid + 1)[0]]
    assert len(twins) == 20 * 3  # in ten persons a group of three and one of two


def test_identities_are_a_pure_function_of_the_seed():
    assert make_person(0, 5) == make_person(0, 5)
    assert make_person(0, 5).look != make_person(1, 5).look
    assert stream(0, "look", 5).random() == stream(0, "look", 5).random()
    assert stream(0, "look", 5).random() != stream(0, "heading", 5).random()


def test_train_and_test_identities_come_from_one_distribution():
    # Prevalence of coarse and middling attributes, 751 against 750 persons of about 500 looks.
    def shares(pids):
        looks = [make_person(0, pid).look for pid in pids]
        names = ("top", "bottom", "hair", "hat", "bag")
        return Counter((name, getattr(look, name)) for look in looks for name in names)

    train, test = shares(range(1, 752)), shares(range(752, 1502))
    assert set(train) == set(test)
    assert all(abs(train[key] - test[key]) < 90 for key in train)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_ended_render_leaves_no_directory_of_the_final_name(tmp_path, sent):
    program = (
        "from pathlib import Path; from data_prep.synthetic.render import render; "
        f"render(Path({str(tmp_path)!r}) / 'out', 'demo', processes=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    while child.poll() is None and len(list(tmp_path.rglob("*.jpg"))) < 3:
        time.sleep(0.05)
    child.send_signal(sent)
    assert child.wait() == -sent
    left = [path.name for path in tmp_path.iterdir()]
    if sent == signal.SIGINT:
        assert left == []
    else:
        # What is left is not taken for the benchmark, nor does it prevent the next run.
        assert [name.startswith(".out.partial-") for name in left] == [True]
        # The next run removes it, but not that of a process that lives.
        living = tmp_path / ".out.partial-living"
        living.mkdir()
        descriptor = os.open(living, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (tmp_path / ".out.partial-file").touch()
        render.render(tmp_path / "out", "tiny", processes=1)
        os.close(descriptor)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".out.partial-file",
            ".out.partial-living",
            "out",
        ]


def test_rendering_imports_neither_jax_nor_tensorflow():
    program = (
        "import sys, data_prep.synthetic.render; "
        "sys.exit(bool({'jax', 'tensorflow', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_render_refuses_bad_arguments(tmp_path):
    with pytest.raises(InputError, match=r"one of tiny, demo, full, got 'huge'"):
        render.render(tmp_path / "out", "huge")
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        render.render(tmp_path / "out", "tiny", seed=-1)
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        render.render(tmp_path / "out", "tiny", processes=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="exists already"):
        render.render(tmp_path / "full", "tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_ids": 0}, "train_ids must be at least 1, got 0"),
        ({"test_ids": 0}, "test_ids must be at least 1, got 0"),
        ({"train_images": 31}, r"twice train_ids \(16\), got 31"),
        ({"query_images": 15}, r"test_ids \(8\), got 15"),
        ({"query_images": 49}, r"test_ids \(8\), got 49"),
        ({"gallery_images": 19}, r"query_images \(20\), got 19"),
        ({"junk": -1}, "got 6 and -1"),
    ],
)
def test_preset_refuses_impossible_numbers(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PRESETS["tiny"], **change)


def test_preset_counts_add_up():
    assert PRESETS["tiny"].total == 130
    assert PRESETS["demo"].total == 2000
    assert PRESETS["full"].total == 12_936 + 3_368 + 19_732
    assert all(field.type in (int, "int") for field in fields(Preset))


@given(st.data())
def test_split_total_adds_up_within_its_bounds(data):
    parts = data.draw(st.integers(1, 40))
    low = data.draw(st.integers(0, 5))
    high = data.draw(st.integers(low, 20))
    total = data.draw(st.integers(parts * low, parts * high))
    numbers = split_total(total, parts, low, high, np.random.default_rng(0))
    assert len(numbers) == parts
    assert sum(numbers) == total
    assert low <= min(numbers) <= max(numbers) <= high


def test_split_total_refuses_impossible_totals():
    with pytest.raises(ValueError, match="2 numbers from 1 to 3 cannot add up to 7"):
        split_total(7, 2, 1, 3, np.random.default_rng(0))


@pytest.mark.parametrize("phase", [0.0, 1.0, 2.5, 4.0])
def test_skeleton_stands_on_the_ground_with_limbs_of_fixed_length(phase):
    rng = np.random.default_rng(0)
    pose = draw_pose(rng, yaw=0.7, phase=phase)
    bones = skeleton(pose, height=1.8, build=1.0)
    assert min(leg[2, 1] for leg in bones.legs) == pytest.approx(0.045 * 1.8)
    for leg in bones.legs:
        lengths = np.linalg.norm(np.diff(leg, axis=0), axis=1)
        np.testing.assert_allclose(lengths, [0.245 * 1.8, 0.24 * 1.8])
    assert bones.left @ bones.forward == pytest.approx(0)


def test_draw_mesh_shows_the_side_towards_the_camera():
    # A tube with a red front and a blue back, seen from both sides by a level camera.
    texture = np.zeros((4, 16, 3), np.float32)
    texture[:, [-3, -2, -1, 0, 1, 2, 3]] = (255, 0, 0)
    texture[:, 5:12] = (0, 0, 255)
    centers = np.linspace([0, 1.5, 0], [0, 0.5, 0], 5)
    camera = replace(CAMERAS[0], pitch=0.0, roll=0.0)
    for yaw, shown, hidden in ((0.0, 0, 2), (np.pi, 2, 0)):
        left = np.array([np.cos(yaw), 0, -np.sin(yaw)])
        ahead = np.array([np.sin(yaw), 0, np.cos(yaw)])
        canvas = np.zeros((120, 60, 3), np.uint8)
        draw_mesh(canvas, tube(centers, left, ahead, 0.3, 0.2, texture), camera, Box(-1, 0, 2, 2))
        assert (canvas[..., shown] > 100).sum() > 500
        assert (canvas[..., hidden] > 100).sum() == 0


def test_cameras_differ_in_view_and_color():
    person = make_person(0, 1)
    mesh = person_mesh(person, draw_pose(stream(0), 0.0, 0.0), stream(0))
    heights = {camera.number: tight_box(view(camera, mesh.quads)[..., :2]) for camera in CAMERAS}
    assert [camera.number for camera in CAMERAS] == list(range(1, layout.CAMERA_COUNT + 1))
    # A camera that looks down steeply sees the person shorter.
    assert heights[4].height < heights[3].height
    assert len({camera.gains for camera in CAMERAS}) == len(CAMERAS)
    assert len(CLOTHES) > 10


def test_detect_cuts_enlarges_and_shifts_boxes():
    tight = Box(-0.25, 0.0, 0.5, 1.7)
    rng = np.random.default_rng(0)
    boxes = [detect(tight, rng) for _ in range(2000)]
    top = np.array([box.bottom + box.height - 1.7 for box in boxes]) / 1.7
    bottom = np.array([-box.bottom for box in boxes]) / 1.7
    aside = np.array([box.left + box.width / 2 for box in boxes]) / 1.7
    assert 0.1 < (bottom < -0.1).mean() < 0.2  # feet cut off
    assert 0.05 < (top < -0.07).mean() < 0.12  # head cut off
    assert 0.1 < ((top > 0.07) & (bottom > 0.05)).mean() < 0.25  # too large
    assert 0.07 < (np.abs(aside) > 0.08).mean() < 0.2  # beside

    def overlap(box):  # intersection over union in height alone bounds that of the areas
        low, high = max(box.bottom, 0.0), min(box.bottom + box.height, 1.7)
        return (high - low) / (max(box.bottom + box.height, 1.7) - min(box.bottom, 0.0))

    assert max(overlap(detect_junk(tight, rng)) for _ in range(500)) < 0.7
    assert np.mean([overlap(box) for box in boxes]) > 0.8


def test_files_have_the_colors_of_the_rendered_image(tiny):
    for shot in shots(PRESETS["tiny"], 0)[::13]:
        written = np.asarray(Image.open(tiny / shot.path)).astype(float)
        rendered = render.render_image(0, shot).astype(float)
        assert np.abs(written.mean((0, 1)) - rendered.mean((0, 1))).max() < 2
        assert np.abs(written - rendered).mean() < 12  # JPEG's loss at the worst camera


def test_draw_mesh_puts_the_nearer_body_in_front():
    centers = np.linspace([0, 1.5, 0], [0, 0.5, 0], 3)
    camera = replace(CAMERAS[0], pitch=0.0, roll=0.0)
    red, blue = (np.full((2, 16, 3), color, np.float32) for color in ((255, 0, 0), (0, 0, 255)))
    for near in (-1.0, 1.0):
        parts = [
            tube(centers + np.array([0, 0, depth]), np.eye(3)[0], np.eye(3)[2], 0.2, 0.2, texture)
            for depth, texture in ((near, red), (-near, blue))
        ]
        canvas = np.zeros((120, 60, 3), np.uint8)
        both = Mesh(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        draw_mesh(canvas, both, camera, Box(-1, 0, 2, 2))
        front = 0 if near > 0 else 2
        assert canvas[60, 30, front] > 100
        assert canvas[60, 30, 2 - front] == 0
