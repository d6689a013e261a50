"""The page of a run: that what it says and shows is so."""

import io
import json
import os
import re
import shutil
from dataclasses import replace
from functools import partial
from html import unescape
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rmgl_jax.config import EvalConfig, ExperimentConfig, ModelConfig, RandomShiftingConfig
from rmgl_jax.data.augment import normalize
from rmgl_jax.data.shifting import random_shifting
from rmgl_jax.data.split import Split
from rmgl_jax.data.store import prepare
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.protocol import evaluate
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.result import measures
from rmgl_jax.models.partition import stripe_receptive_region
from rmgl_jax.models.pooling import activation_balanced_bounds
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.report import __main__ as command
from rmgl_jax.report import curves, page
from rmgl_jax.report.page import write_report
from rmgl_jax.report.ranked_lists import choose_queries, ranked_lists
from rmgl_jax.report.receptive_regions import receptive_regions
from rmgl_jax.report.response_maps import overlay, responses
from rmgl_jax.report.shifting_samples import shifting_samples
from rmgl_jax.training.checkpoints import open_checkpoints, save
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.run_directory import init_run_directory
from rmgl_jax.training.step import create_state
from tests.tiny import tiny_config
from tests.tiny_model import TINY, random_variables
from tests.tiny_trees import prepare_partial, write_images, write_market
from tests.trained_run import run_config

STEP = 4


def write_run(
    workdir: Path, dataset: str, config: ExperimentConfig | None = None
) -> tuple[ExperimentConfig, dict]:
    """A run that was never run: configuration, checkpoint and records."""
    config = replace(config or tiny_config((2, 3)), dataset=dataset)
    init_run_directory(config, workdir)
    state = create_state(config.model, make_optimizer(config.optimizer, 1), seed=3)
    with open_checkpoints(workdir / "checkpoints", keep=1) as manager:
        save(manager, state.replace(step=state.step + STEP), 0.5)
    records = [
        {
            "kind": "train",
            "step": step,
            "loss": 5.0 - step,
            "cross_entropy": 3.0,
            "triplet": 2.0 - step if step < STEP else "nan",
            "learning_rate": 0.01,
            "accuracy": 0.25 * step,
            "images_per_second": 10.0 * step,
        }
        for step in range(1, STEP + 1)
    ]
    measured = {"rank-1": 0.25, "mean_ap": 0.2, "mean_ap_official": 0.15, "mean_inp": 0.05}
    records.append({"kind": "eval", "step": STEP, **measured})
    lines = (json.dumps(record) + "\n" for record in records)
    (workdir / "metrics.jsonl").write_text("".join(lines))
    return config, {"params": state.params, "batch_stats": state.batch_stats}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Rendered people, and noise that is called Market-1501."""
    root = tmp_path_factory.mktemp("home")
    prepare_partial("synthetic/tiny", None, root / "data")
    prepare_partial("market1501", write_market(root / "Market-1501"), root / "data")
    return root


class Finished:
    """A finished run on the rendered people, its page, and what should be on it."""

    def __init__(self, home: Path) -> None:
        self.workdir = home / "run"
        self.data_dir = home / "data"
        self.config, self.variables = write_run(self.workdir, "synthetic/tiny")
        builder = prepare_partial("synthetic/tiny", None, self.data_dir)
        size = self.config.model.image_size
        self.query, self.gallery = (prepare(builder, name, size) for name in ("query", "gallery"))
        settings = EvalConfig(rerank=True, k1=5, k2=2, batch_size=64)
        self.result = evaluate(
            self.config.model,
            self.variables,
            self.query,
            self.gallery,
            settings,
            checkpoint="run",
            step=STEP,
            trained_on="synthetic/tiny",
        )
        (self.workdir / "result.json").write_text(self.result.to_json())
        made = {"command": "python -m me --a '<b>'", "commit": None, "device": "2 x abacus"}
        (self.workdir / "run.json").write_text(json.dumps(made))
        self.path = write_report(self.workdir, data_dir=self.data_dir)
        self.html = self.path.read_text()


@pytest.fixture(scope="module")
def finished(home):
    return Finished(home)


def part(html: str, section: str) -> str:
    """The section of a page with this id."""
    (found,) = re.findall(rf'<section id="{section}">(.*?)</section>', html, re.DOTALL)
    return found


def text(html: str) -> str:
    """What is left for the eye, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


# --- The table ----------------------------------------------------------------------------------


def test_the_table_has_the_numbers_of_the_result(finished):
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', part(finished.html, "result"))
    assert [name for name, _ in rows] == ["not re-ranked", "re-ranked"]
    for (_, cells), metrics in zip(
        rows, (finished.result.plain, finished.result.reranked.metrics), strict=True
    ):
        shown = re.findall(r'<td><data value="(.*?)">(.*?)</data></td>', cells)
        wanted = measures(metrics)
        assert list(wanted) == ["rank-1", "rank-5", "rank-10", *list(wanted)[3:]]
        assert [float(value) for value, _ in shown] == list(wanted.values())
        assert [cell for _, cell in shown] == [f"{value:.2f}" for value in wanted.values()]
    assert "re-ranking with k1 5, k2 2, lambda 0.3" in part(finished.html, "result")


def test_it_is_ranked_anew_with_the_same_weights(finished):
    assert (
        f"checkpoint of step {STEP}. Ranked with it again, mAP (step) is "
        f"{100 * finished.result.plain.mean_ap:.2f}." in text(finished.html)
    )


# --- Ranked lists -------------------------------------------------------------------------------


def test_the_lists_are_those_of_the_embeddings(finished):
    query, gallery = finished.query, finished.gallery
    features = [
        embed(finished.config.model, finished.variables, split.images, batch_size=64)
        for split in (query, gallery)
    ]
    distances = np.linalg.norm(features[0][:, None] - features[1][None], axis=2)
    metrics = rank_metrics(distances, query.pids, query.camids, gallery.pids, gallery.camids)
    order = np.argsort(metrics.ap, kind="stable")
    articles = re.findall(
        r'<article class="ranked" data-group="(\w+)" data-ap="(.*?)">(.*?)</article>',
        part(finished.html, "lists"),
        re.DOTALL,
    )
    # Of 20 queries 7 of a kind, with one left between two kinds.
    assert [group for group, _, _ in articles] == ["worst"] * 7 + ["median"] * 6 + ["best"] * 7
    values = [float(ap) for _, ap, _ in articles]
    assert values == sorted(values)
    np.testing.assert_allclose(values, metrics.ap[order], atol=1e-6)
    for (_, _, article), row in zip(articles, order, strict=True):
        same = gallery.pids == query.pids[row]
        kept = ~(same & (gallery.camids == query.camids[row]))
        wanted = [i for i in np.argsort(distances[row], kind="stable") if kept[i]][:10]
        hits = re.findall(r'<li class="hit (\w+)" data-index="(\d+)">(.*?)</li>', article, re.S)
        assert [int(index) for _, index, _ in hits] == wanted
        for rank, (frame, index, hit) in enumerate(hits, 1):
            is_match = same[int(index)]
            assert frame == ("match" if is_match else "other")
            assert f"{rank} {'✓' if is_match else '✗'}" in text(hit)
            alt = re.search(r'alt="(.*?)"', hit)[1]
            said = "match" if is_match else "another identity"
            assert alt.startswith(f"Rank {rank}, {said}: identity {gallery.pids[int(index)]}, ")


def split_of(pids, camids, name="gallery") -> Split:
    return Split(
        images=np.zeros((len(pids), 4, 4, 3), np.uint8),
        pids=np.array(pids, np.int32),
        camids=None if camids is None else np.array(camids, np.int32),
        names=[str(i) for i in range(len(pids))],
        dataset="made",
        version="1",
        split=name,
    )


def test_junk_and_the_own_camera_are_left_out_of_a_list():
    query = split_of([5], [0], "query")
    #               junk, own camera, match, distractor, other, match
    gallery = split_of([-1, 5, 5, 0, 6, 5], [1, 0, 1, 0, 0, 2])
    place = np.array([0.0, 0.1, 0.3, 0.2, 0.4, 0.3])
    features = np.stack([np.cos(place), np.sin(place)], axis=1).astype(np.float32)
    (found,) = ranked_lists(query, gallery, (features[:1], features), np.array([0.5]))
    assert [hit.index for hit in found.hits] == [3, 2, 5, 4]  # Of equal ones the first comes first.
    assert [hit.rank for hit in found.hits] == [1, 2, 3, 4]
    assert [hit.match for hit in found.hits] == [False, True, True, False]
    assert (found.matches, found.group, found.place, found.ap) == (2, "worst", 1, 0.5)
    np.testing.assert_allclose(found.hits[1].distance, 2 * np.sin(0.15), atol=1e-6)


def test_without_cameras_nothing_but_junk_is_left_out():
    query, gallery = split_of([5], None, "query"), split_of([-1, 5, 6], None)
    features = np.eye(3, dtype=np.float32)
    (found,) = ranked_lists(query, gallery, (features[:1], features), np.array([1.0]), length=5)
    assert [hit.index for hit in found.hits] == [1, 2]


@given(
    st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1, max_size=80), st.integers(1, 9)
)
def test_the_chosen_queries_are_the_worst_the_median_and_the_best(values, each):
    ap = np.array(values)
    chosen = choose_queries(ap, each)
    valid = np.sort(ap[~np.isnan(ap)])
    queries = [query for _, _, query in chosen]
    assert len(set(queries)) == len(queries)
    np.testing.assert_array_equal([valid[place - 1] for _, place, _ in chosen], ap[queries])
    assert sorted(place for _, place, _ in chosen) == [place for _, place, _ in chosen]
    groups = [group for group, _, _ in chosen]
    assert groups == sorted(groups, key=["worst", "median", "best"].index)
    if len(valid) >= 3 * each:
        assert [groups.count(group) for group in ("worst", "median", "best")] == [each] * 3
        middle = [place for group, place, _ in chosen if group == "median"]
        assert abs(np.mean(middle) - (len(valid) + 1) / 2) <= 0.5
    if len(valid):
        assert chosen[0][1] == 1
        assert chosen[-1][1] == len(valid)


# --- What the network sees ----------------------------------------------------------------------


def test_boundaries_and_crosses_are_those_of_the_pooling(finished):
    section = part(finished.html, "stripes")
    drawn = re.findall(r"<svg(.*?)</svg>", section, re.DOTALL)
    queries = [int(row) for row in re.findall(r'data-query="(\d+)"', section)]
    assert len(queries) == len(set(queries)) == 6
    images = normalize(finished.query.images[queries])
    apply = partial(RMGL(finished.config.model).apply, method="feature_maps")
    maps = jax.jit(apply)(finished.variables, images)
    # Two branches for each image, the original path of each.
    assert len(drawn) == 12
    for number, svg in enumerate(drawn):
        image, stripes = number // 2, 2 + number % 2
        own = maps[f"local{stripes}/original"][image]
        bounds = np.asarray(activation_balanced_bounds(own[None], stripes))[0]
        height = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1])
        lines = re.findall(r'<line data-row="(\d+)" .*? y1="(.*?)" y2="(.*?)"', svg)
        assert [int(row) for row, _, _ in lines] == bounds[1:-1].tolist()
        for row, y1, y2 in lines:
            assert y1 == y2 == f"{int(row) * height / len(own):.1f}"
        where = np.asarray(own).reshape(-1, own.shape[-1]).argmax(axis=0)
        crosses = svg.partition('class="peaks"')[2].partition("</g>")[0].count("<path")
        assert crosses == len(set(where.tolist()))
        rows = np.bincount(where // own.shape[1], minlength=len(own))
        widths = [float(w) for w in re.findall(r'<rect .*?width="(.*?)"', svg)]
        np.testing.assert_allclose(np.array(widths) / max(widths), rows / rows.max(), atol=0.01)


def test_every_path_has_its_response_and_its_region(finished):
    names = ["local2/original", "local2/receptive", "local3/original", "local3/receptive"]
    responses = part(finished.html, "responses").replace("<wbr>", "")
    assert re.findall(r"<small>(\S+)</small>", responses) == ["image", *names] * 6
    regions = re.findall(r"<small>(\S+):", part(finished.html, "regions").replace("<wbr>", ""))
    assert regions == names


def test_responses_fill_their_range_image_by_image():
    maps = np.random.default_rng(0).normal(size=(2, 3, 2, 5)) + 7
    found = responses(maps)
    for image, mean in zip(found, maps.mean(axis=3), strict=True):
        wanted = (mean - mean.min()) / (mean.max() - mean.min())
        np.testing.assert_allclose(image, wanted, atol=1e-5)
    np.testing.assert_array_equal(responses(np.ones((1, 3, 2, 5))), np.zeros((1, 3, 2)))


def test_the_overlay_is_brightest_where_the_response_is():
    response = np.zeros((4, 2))
    response[3, 1] = 1.0
    shown = overlay(np.full((32, 16, 3), 90, np.uint8), response, 64)
    assert (shown.shape, shown.dtype) == ((64, 32, 3), np.uint8)
    brightness = shown.sum(axis=2, dtype=int)
    assert brightness[60, 30] == brightness.max() > brightness[2, 2] == brightness.min()


def test_regions_of_the_paper():
    """ResNet-50 at 384x128: the whole image from the original path, Eq. 6 from the receptive."""
    config = ModelConfig()
    regions = {path.map_name: path for path in receptive_regions(config)}
    assert regions["local2/original"].seen == ((0, 358), (11, 384))
    for stripes in (2, 3):
        receptive = regions[f"local{stripes}/receptive"]
        assert receptive.height == stripe_receptive_region(config, stripes, "res2")
        rows = 384 // stripes
        for number, (start, stop) in enumerate(receptive.seen):
            assert start <= number * rows < (number + 1) * rows <= stop
            assert stop - start <= receptive.height < regions[f"local{stripes}/original"].height
    assert receptive_regions(replace(config, granularities=(1,))) == []


def test_a_stripe_sees_its_region_and_no_pixel_beyond():
    config = replace(TINY, image_size=(160, 32), granularities=(2,))
    variables = random_variables(config)
    images = np.random.default_rng(0).normal(size=(1, *config.image_size, 3)).astype(np.float32)

    @jax.jit
    def influence(images):
        """For each path and stripe, how much each pixel row weighs in it."""

        def stripe(images, name, number):
            maps = RMGL(config).apply(variables, images, method="feature_maps")[name]
            rows = maps.shape[1] // 2
            return maps[:, number * rows : (number + 1) * rows].sum()

        return {
            (name, number): abs(jax.grad(stripe)(images, name, number)).sum(axis=(0, 2, 3))
            for name in ("local2/original", "local2/receptive")
            for number in (0, 1)
        }

    weights = influence(images)
    paths = {path.map_name: path for path in receptive_regions(config)}
    for (name, number), rows in weights.items():
        seen = np.flatnonzero(np.asarray(rows))
        start, stop = paths[name].seen[number]
        assert (start, stop) == (seen[0], seen[-1] + 1), (name, number)
    assert paths["local2/receptive"].seen[0][1] < paths["local2/original"].seen[0][1] < 160


def test_shifting_is_the_augmentations_own():
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 24, 3), dtype=np.uint8)
    config = RandomShiftingConfig(probability=0.0, crop_probability=1.0)
    samples = shifting_samples(images, config, seed=5)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(np.arange(3))
    wanted = jax.jit(partial(random_shifting, config=replace(config, probability=1.0)))(
        keys, images
    )
    for sample, shifted in zip(samples, np.asarray(wanted), strict=True):
        np.testing.assert_allclose(sample.shifted, np.clip(shifted, 0, 255), atol=0.51)
        assert sample.crop.height < 48
        assert 24 <= sample.patch.shape[0] <= 48
        # The patch is all that is not filled.
        outside = (sample.shifted == config.fill).all(axis=2).sum()
        assert outside == 48 * 24 - np.prod(sample.patch.shape[:2])


# --- Curves and run card ------------------------------------------------------------------------


def test_curves_take_the_color_of_the_text():
    records = [{"kind": "train", "step": i, "loss": 1.0 / i} for i in range(1, 1000)]
    svg = curves.training_curves(records, ["loss"], "loss")
    assert "currentColor" in svg
    assert "xmlns" not in svg
    # Many steps are averaged to few points.
    line = re.search(r'<path d="(M[^"]*)" clip-path', svg)[1]
    assert line.count("L") < 260


def test_values_that_are_no_numbers_are_read():
    records = [{"kind": "train", "step": 1, "loss": "nan"}, {"kind": "eval", "step": 1, "loss": 2}]
    steps, values = curves.series(records, "train", "loss")
    assert steps.tolist() == [1.0]
    assert np.isnan(values).all()
    assert curves.series(records, "train", "triplet")[0].shape == (0,)


def test_the_run_card_says_how_it_was_made(finished):
    section = part(finished.html, "run")
    card = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section))
    assert unescape(card["command"]) == "python -m me --a '<b>'"
    assert "<b>" not in section
    assert (card["commit"], card["device"]) == ("not recorded", "2 x abacus")
    assert (card["seed"], card["training speed"]) == ("0", "25 images/s (median)")
    assert card["evaluated on"].startswith("synthetic/tiny 1.0.0: 20 queries of 8 identities, 42")
    changed = re.findall(r"<code>(.*?)</code></th><td>(.*?)</td><td>(.*?)</td>", section)
    assert ("model.width", "4", "64") in changed
    assert not any(name == "model.fold_at" for name, _, _ in changed)


# --- One file, and whose pictures are in it -----------------------------------------------------


def assert_self_contained(html: str) -> None:
    assert not re.search(r"https?:|//\w+\.\w|url\((?!#)|@import|<iframe|<object", html)
    for target in re.findall(r'(?:src|href|srcset|action)="([^"]*)"', html):
        assert target.startswith(("data:", "#")), target[:80]
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', html):
        assert "".join(target) in ids
    for image in re.findall(r"<img [^>]*>", html):
        assert re.search(r'alt="[^"]+"', image)
    for figure in re.findall(r"<figure>.*?</figure>", html, re.DOTALL):
        assert "<figcaption>" in figure


def test_the_page_is_one_file_that_needs_nothing(finished):
    assert_self_contained(finished.html)
    for number in (3, 4, 5, 6):
        assert f"Compare Fig. {number}" in finished.html
    assert "data:image/jpeg" in finished.html  # Nobody is in rendered pictures.
    assert "--figures" not in finished.html
    assert "passed on" not in finished.html


def test_photographs_are_shown_only_when_asked_for(home, tmp_path, monkeypatch):
    workdir = tmp_path / "market"
    write_run(workdir, "market1501")
    asked = write_report(
        workdir, data_dir=home / "data", output=tmp_path / "asked.html", figures=True
    ).read_text()
    assert "data:image" in asked
    assert "shows photographs of people, from market1501." in text(asked)
    assert "must not be passed on where the data set's terms forbid it" in text(asked)
    assert_self_contained(asked)

    # Not asked, it needs neither the data nor the network.
    monkeypatch.setattr(page, "inspect_run", lambda *args: pytest.fail("looked at the images"))
    plain = write_report(workdir, data_dir=tmp_path / "nowhere").read_text()
    assert "data:image" not in plain
    assert "<img" not in plain
    assert "Pictures are left out, because people are in them; --figures adds them." in text(plain)
    assert not re.search(r"\d{4}_c\d", plain)  # No file name either.
    assert_self_contained(plain)
    assert "evaluation on the way, step 4" in plain
    assert '<data value="20.0">20.00</data>' in plain


def test_what_a_network_has_not_is_said(tmp_path):
    """A global branch alone, trained without RSA, and own images without cameras."""
    names = [f"{pid}_{number}.png" for pid in (1, 2) for number in range(3)]
    write_images(tmp_path / "own" / "query", names[::3])
    write_images(tmp_path / "own" / "gallery", names)
    prepare_partial("folder/own", tmp_path / "own", tmp_path / "data")
    config = run_config("folder/own")
    model = replace(config.model, granularities=(1,))
    augment = replace(config.augment, shifting=RandomShiftingConfig())
    write_run(tmp_path / "run", "folder/own", replace(config, model=model, augment=augment))
    html = write_report(tmp_path / "run", data_dir=tmp_path / "data", figures=True).read_text()
    assert_self_contained(html)
    assert "This network does not balance its stripes." in part(html, "stripes")
    assert "This network was trained without it." in part(html, "shifting")
    assert "This network has no stripes." in part(html, "regions")
    shown = re.findall(r"<small>(\S+)</small>", part(html, "responses").replace("<wbr>", ""))
    assert shown == ["image", "global"] * 2
    assert "cam " not in part(html, "lists")
    assert "own camera" not in text(part(html, "lists"))


# --- What is not there --------------------------------------------------------------------------


def test_an_unfinished_run_is_shown_as_far_as_it_is(finished, tmp_path):
    workdir = shutil.copytree(finished.workdir, tmp_path / "run")
    (workdir / "result.json").unlink()
    html = write_report(workdir, data_dir=finished.data_dir).read_text()
    assert "This run is not finished" in html
    assert f"measured for this page, step {STEP}" in html
    assert f"{100 * finished.result.plain.mean_ap:.2f}</data>" in html
    shutil.rmtree(workdir / "checkpoints")
    html = write_report(workdir).read_text()
    assert "It has no checkpoint yet either, so there are no pictures." in text(html)
    assert "data:image" not in html
    assert_self_contained(html)
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text(lines[0])
    assert "Nothing is evaluated yet." in write_report(workdir).read_text()


@pytest.fixture
def fails(monkeypatch, capsys):
    """Runs the command; the sentence it ends with."""
    monkeypatch.setattr(command, "silence_loggers", lambda: None)
    monkeypatch.setenv("COLUMNS", "1000")

    def fail(*arguments):
        with pytest.raises(SystemExit) as ended:
            command.main([str(argument) for argument in arguments])
        assert ended.value.code == 1
        (line,) = capsys.readouterr().out.strip().splitlines()
        return line

    return fail


def test_what_is_missing_is_said_in_one_sentence(finished, fails, tmp_path):
    assert "no work directory of a run" in fails("--workdir", tmp_path)
    assert "no work directory of a run" in fails("--workdir", tmp_path / "nowhere")
    empty = tmp_path / "empty"
    init_run_directory(finished.config, empty)
    assert "has nothing to report yet" in fails("--workdir", empty)
    said = fails("--workdir", finished.workdir, "--data-dir", tmp_path, "--output", tmp_path / "r")
    assert f"synthetic/tiny is not prepared in {tmp_path}" in said
    assert "--data_dir wants" in said
    damaged = shutil.copytree(finished.workdir, tmp_path / "damaged")
    (damaged / "result.json").write_text("{}")
    assert f"{damaged}/result.json is damaged" in fails("--workdir", damaged)
    assert not (tmp_path / "r").exists()


def test_the_command_says_where_the_page_is(finished, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "silence_loggers", lambda: None)
    monkeypatch.setattr(page, "inspect_run", lambda *args: None)
    output = tmp_path / "new" / "page.html"
    command.main(["--workdir", str(finished.workdir), "--output", str(output)])
    assert capsys.readouterr().out == f"The report is in {output}\n"
    assert output.is_file()


def test_a_page_that_cannot_be_written_leaves_the_old_one(finished, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "inspect_run", lambda *args: None)
    output = tmp_path / "page.html"
    output.write_text("old")

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(finished.workdir, output=output)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert output.read_text() == "old"


def test_progress_goes_to_the_console(finished):
    console = Console(file=io.StringIO(), force_terminal=True)
    write_report(finished.workdir, data_dir=finished.data_dir, console=console)
    assert "embedding gallery" in console.file.getvalue()


# --- In a browser -------------------------------------------------------------------------------

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="no Chromium with its driver; on Debian: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that keeps what it logs and what it asks the network for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # No sandbox, as tests may run as root, and none of Chromium's own traffic.
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-background-networking",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, finished):
    """The page, opened in a window of a size; at the end nothing was logged or asked for."""

    def open_page(width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
        browser.get(finished.path.as_uri())
        return browser

    for kind in ("performance", "browser"):
        browser.get_log(kind)  # Forgets what was before.
    yield open_page
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert finished.path.as_uri() in asked
    assert all(url.startswith(("file://", "data:")) for url in asked)
    assert len([url for url in asked if url.startswith("file:")]) == 1


def shown(browser) -> list[tuple[str, float]]:
    """Group and AP of the lists that can be seen."""
    lists = browser.find_elements("css selector", "article.ranked")
    return [
        (found.get_attribute("data-group"), float(found.get_attribute("data-ap")))
        for found in lists
        if found.is_displayed()
    ]


def button(browser, label):
    return browser.find_element("xpath", f"//button[contains(., '{label}')]")


@in_browser
def test_the_control_steps_through_the_lists(opened, finished):
    from selenium.webdriver.common.keys import Keys

    browser = opened(1200, 900)
    assert browser.title == "RMGL on synthetic/tiny"
    ap = np.sort(finished.result.plain.ap)
    where = browser.find_element("css selector", "output")

    def assert_at(number, group):
        ((found, value),) = shown(browser)
        assert found == group
        assert value == pytest.approx(ap[number - 1], abs=1e-6)
        assert where.text == f"{number} of {len(ap)}"
        pressed = browser.find_elements("css selector", "[aria-pressed=true]")
        assert [element.text.lower() for element in pressed] == [group]

    assert_at(1, "worst")
    assert not button(browser, "Previous").is_enabled()
    # Through all of them, one by one.
    for number in range(2, len(ap) + 1):
        button(browser, "Next").click()
        assert_at(number, "worst" if number <= 7 else "median" if number <= 13 else "best")
    assert not button(browser, "Next").is_enabled()
    button(browser, "Median").click()
    assert_at(8, "median")
    button(browser, "Worst").click()
    assert_at(1, "worst")
    button(browser, "Best").click()
    assert_at(20, "best")
    # And by the keyboard alone.
    body = browser.find_element("css selector", "body")
    body.click()
    focus = browser.switch_to.active_element
    for _ in range(30):
        if focus.text == "Worst":
            break
        focus.send_keys(Keys.TAB)
        focus = browser.switch_to.active_element
    focus.send_keys(Keys.ENTER)
    assert_at(1, "worst")
    focus.send_keys(Keys.ARROW_RIGHT)
    assert_at(2, "worst")
    focus.send_keys(Keys.END)
    assert_at(20, "best")
    focus.send_keys(Keys.ARROW_LEFT)
    assert_at(19, "best")


@in_browser
def test_on_a_phone_it_fits_and_fingers_find_the_buttons(opened):
    browser = opened(360, 740)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width == 360
    (_,) = shown(browser)
    for element in browser.find_elements("css selector", ".controls button"):
        assert element.size["height"] >= 44
        assert 0 <= element.rect["x"] < element.rect["x"] + element.size["width"] <= 360
    best = button(browser, "Best")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", best)
    box = browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", best)
    finger = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for kind, points in (("touchStart", [finger]), ("touchEnd", [])):
        touch = {"type": kind, "touchPoints": points}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", touch)
    ((group, _),) = shown(browser)
    assert group == "best"
    # Every picture that is there can be decoded.
    broken = "return [...document.images].filter(i => !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
