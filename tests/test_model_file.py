"""Models loaded from run directories and model files."""

import json
import shutil
import threading
import time
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.export.model_file import TrainedModel, load_model, save_model
from rmgl_jax.training.checkpoints import CheckpointError
from rmgl_jax.training.run_directory import CONFIG_NAME
from rmgl_jax.training.scores import SCORES_NAME
from tests.tiny_model import random_variables
from tests.trained_run import random_state, run_config, write_run
from tests.trees import assert_trees_close

pytestmark = pytest.mark.network

CONFIG = run_config("market1501")
KERNEL = "params/backbone/stem/conv/kernel"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "market"
    write_run(workdir, "market1501", {3: 0.5, 6: 0.9, 9: None})
    return workdir


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model file with its model."""
    model = TrainedModel(CONFIG, random_variables(CONFIG.model), step=12, digest="")
    path = tmp_path_factory.mktemp("models") / "made" / "model.safetensors"
    save_model(model, path)
    return path, model


def read(path):
    with safe_open(path, framework="numpy") as file:
        return load_file(path), file.metadata()


def assert_replicated(variables):
    leaves = jax.tree.leaves(variables)
    assert all(leaf.is_fully_replicated for leaf in leaves)
    assert all(len(leaf.sharding.device_set) == jax.device_count() for leaf in leaves)


def test_model_file_round_trip(saved):
    path, model = saved
    loaded = load_model(str(path))
    assert_trees_close(loaded.variables, model.variables)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(loaded.variables)} == {"float32"}
    assert_replicated(loaded.variables)
    assert (loaded.config, loaded.step, loaded.trained_on) == (CONFIG, 12, "market1501")
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    _, metadata = read(path)
    assert json.loads(metadata["preprocessing"])["image_size"] == [32, 16]
    assert metadata["trained_on"] == "market1501"


def test_model_file_of_a_checkpoint_round_trip(workdir, tmp_path):
    """The digest is that of the weights, wherever they are loaded from."""
    model = load_model(workdir, step=6)
    for path in (tmp_path / "a.safetensors", tmp_path / "b.safetensors"):
        save_model(model, path)
        model = load_model(path)
    expected = load_model(workdir, step=6)
    assert_trees_close(model.variables, expected.variables)
    assert (model.step, model.digest, model.config) == (6, expected.digest, expected.config)


def test_model_file_flipped_bits_are_rejected(saved, tmp_path):
    """In the header, in the metadata and in the weights."""
    path, _ = saved
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    damaged = tmp_path / "damaged.safetensors"
    random = np.random.default_rng(0)
    offsets = [*range(8), *random.integers(8, header + 8, 20)]
    offsets += [*random.integers(header + 8, len(content), 4), header + 8, len(content) - 1]
    for offset in offsets:
        changed = bytearray(content)
        changed[offset] ^= 1 << int(random.integers(8))
        damaged.write_bytes(changed)
        with pytest.raises(InputError, match=r"damaged\.safetensors"):
            load_model(damaged)


def test_model_file_truncated_or_garbage_is_rejected(saved, tmp_path):
    content = saved[0].read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for part in (b"", content[:4], content[:200], content[:-1], content + b"0", b"garbage" * 99):
        damaged.write_bytes(part)
        with pytest.raises(InputError, match=r"damaged\.safetensors is not a complete"):
            load_model(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, m: m.clear(), "not a model file of rmgl_jax.*format_version"),
        (lambda a, m: m.update(format_version="2"), "format version 2.* 1"),
        (lambda a, m: [m.pop("step"), m.pop("digest")], "metadata digest, step"),
        (lambda a, m: m.update(step="13"), "damaged: the metadata"),
        (lambda a, m: a.pop(KERNEL), f"{KERNEL} is missing"),
        (lambda a, m: a.update(extra=a[KERNEL]), "extra is unexpected"),
        (
            lambda a, m: a.update({KERNEL: a[KERNEL][:, :, :, :1]}),
            rf"{KERNEL} is float32 \[7, 7, 3, 1\], expected float32 \[7, 7, 3, 2\]",
        ),
        (lambda a, m: a.update({KERNEL: a[KERNEL].astype(np.float16)}), "is F16 .* float32"),
        (lambda a, m: a.update({KERNEL: a[KERNEL].astype(np.int32)}), "is I32 .* float32"),
        (lambda a, m: a.update({KERNEL: a[KERNEL] * np.nan}), f"NaN or infinity in {KERNEL}"),
        (lambda a, m: a.update({KERNEL: a[KERNEL] * 2}), "damaged: the weights"),
    ],
)
def test_model_file_of_other_content_is_rejected(saved, tmp_path, change, message):
    arrays, metadata = read(saved[0])
    change(arrays, metadata)
    path = tmp_path / "changed.safetensors"
    save_file(arrays, path, metadata)
    with pytest.raises(InputError, match=rf"changed\.safetensors.*{message}"):
        load_model(path)


def test_model_file_names_all_mismatches(saved, tmp_path):
    arrays, metadata = read(saved[0])
    names = sorted(arrays)[:3]
    for name in names:
        del arrays[name]
    save_file(arrays, tmp_path / "changed.safetensors", metadata)
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "changed.safetensors")
    assert all(f"{name} is missing" in str(caught.value) for name in names)


def test_save_model_rejects_what_load_model_would(saved, tmp_path):
    model = saved[1]
    nan = jax.tree.map(lambda leaf: leaf * np.nan, model.variables)
    other = replace(CONFIG, model=replace(CONFIG.model, num_classes=4))
    with pytest.raises(InputError, match="NaN"):
        save_model(replace(model, variables=nan), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"classifier.* 3\].* 4\]"):
        save_model(replace(model, config=other), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.npz"):
        save_model(model, tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_save_model_writes_completely_or_not_at_all(saved, tmp_path):
    (tmp_path / "model.safetensors" / "full").mkdir(parents=True)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        save_model(saved[1], tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_load_model_rejects_other_paths(saved, tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.safetensors"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="step"):
        load_model(saved[0], step=3)
    with pytest.raises(InputError, match="best"):
        load_model(saved[0], best=True)
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_model(tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_model(tmp_path / "absent")


def test_load_model_reads_the_checkpoint_asked_for(workdir):
    models = [load_model(workdir), load_model(workdir, best=True), load_model(workdir, step=3)]
    assert [model.step for model in models] == [9, 6, 3]
    assert len({model.digest for model in models}) == 3
    state = random_state(CONFIG, step=3)
    expected = {"params": state.params, "batch_stats": state.batch_stats}
    assert_trees_close(models[2].variables, expected)
    assert_replicated(models[2].variables)
    assert models[2].config == CONFIG
    with pytest.raises(CheckpointError, match=r"step 4.* \[3, 6, 9\]"):
        load_model(workdir, step=4)
    with pytest.raises(InputError, match="step 3"):
        load_model(workdir, step=3, best=True)


def contents(directory):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(directory.rglob("*"))
    }


def test_load_model_changes_nothing_while_training_is_running(workdir, tmp_path):
    busy = tmp_path / "busy"
    shutil.copytree(workdir, busy)
    partial = busy / "checkpoints" / "12.orbax-checkpoint-tmp"
    partial.mkdir()
    (partial / "part").write_bytes(b"begun")
    before = contents(busy)
    assert load_model(busy).step == 9
    assert load_model(busy, best=True).step == 6
    assert contents(busy) == before


def test_load_model_skips_damaged_checkpoint_unless_asked_for(workdir, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(workdir, damaged)
    for path in (damaged / "checkpoints" / "9" / "default" / "d").iterdir():
        path.write_bytes(b"")
    assert load_model(damaged).step == 6
    with pytest.raises(CheckpointError, match=r"\[9\]"):
        load_model(damaged, step=9)


def test_load_model_reads_beside_a_run_that_replaces_its_checkpoints(workdir, tmp_path):
    """A run that is so fast that every checkpoint is gone once it is found."""
    busy = tmp_path / "busy"
    shutil.copytree(workdir, busy)
    saved = busy / "checkpoints"
    step, stop = 9, threading.Event()

    def run():
        nonlocal step
        while not stop.is_set():
            shutil.copytree(saved / str(step), saved / f"{step + 3}.part")
            (saved / f"{step + 3}.part").rename(saved / str(step + 3))
            (saved / str(step) / "_CHECKPOINT_METADATA").unlink()
            shutil.rmtree(saved / str(step))
            step += 3
            time.sleep(0.05)  # Slower than 50 attempts, after which reading gives up.

    for earlier in ("3", "6"):
        shutil.rmtree(saved / earlier)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        while step < 15:
            time.sleep(0.01)
        threading.Timer(1.5, stop.set).start()
        found = load_model(busy)
    finally:
        stop.set()
        thread.join()
    assert found.digest == load_model(workdir).digest


def test_load_model_takes_no_other_checkpoint_for_the_best(workdir, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(workdir, damaged)
    (damaged / "checkpoints" / SCORES_NAME).unlink()
    with pytest.raises(InputError, match=SCORES_NAME):
        load_model(damaged, best=True)
    assert load_model(damaged).step == 9


def test_load_model_refuses_a_changed_configuration(workdir, tmp_path):
    """Here a field that changes no shape, so that the weights would fit."""
    changed = tmp_path / "changed"
    shutil.copytree(workdir, changed)
    path = changed / CONFIG_NAME
    text = path.read_text()
    path.write_text(text.replace('"flip": true', '"flip": false'))
    assert path.read_text() != text
    with pytest.raises(InputError, match=r"config\.json was changed .* step 9"):
        load_model(changed)
    path.write_text(json.dumps(json.loads(text)))  # Other white space only.
    assert load_model(changed).step == 9


def test_load_model_reads_a_checkpoint_without_digest_of_its_configuration(workdir, tmp_path):
    """As version 0.1.0 saved it."""
    earlier = tmp_path / "earlier"
    shutil.copytree(workdir, earlier)
    path = earlier / "checkpoints" / "9" / "_CHECKPOINT_METADATA"
    metadata = json.loads(path.read_text())
    del metadata["custom_metadata"]["config_digest"]
    path.write_text(json.dumps(metadata))
    assert load_model(earlier).step == 9


def test_load_model_without_scores_or_checkpoints(tmp_path):
    run = tmp_path / "run"
    write_run(run, "market1501", {3: None})
    with pytest.raises(InputError, match=r"\[3\]"):
        load_model(run, best=True)
    for removed in (run / "checkpoints" / "3", run / "checkpoints"):
        shutil.rmtree(removed)
        with pytest.raises(MissingFileError, match="no checkpoints"):
            load_model(run)
