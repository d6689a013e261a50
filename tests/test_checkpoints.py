"""Checkpoints are restored bit for bit, or refused if their files are damaged."""

import errno
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_prep.errors import InputError
from rmgl_jax.training.checkpoints import (
    CheckpointError,
    NonFiniteStateError,
    digest,
    finish,
    open_checkpoints,
    open_for_reading,
    restore,
    save,
)
from rmgl_jax.training.scores import SCORES_NAME, best_step, read_scores, record_score
from rmgl_jax.training.step import TrainState
from tests.full_disk import full_disk


def make_state(step: int, size: int = 2000) -> TrainState:
    """Numbers that depend on the step, among them those that a careless copy changes."""
    weights = np.random.default_rng(step).normal(size=size).astype(np.float32)
    weights[:4] = -0.0, 1e-42, 1 - 2**-24, np.finfo(np.float32).max
    return TrainState(
        step=jnp.int32(step),
        params={"a": {"kernel": jnp.asarray(weights)}, "b": jnp.float32(step)},
        batch_stats={"mean": jnp.full((3,), step, jnp.float32)},
        opt_state=({"trace": jnp.asarray(weights[::-1])}, jnp.int32(step)),
    )


def bits(state: TrainState) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A directory with the checkpoints of steps 1 and 2."""
    directory = tmp_path_factory.mktemp("two")
    with open_checkpoints(directory, keep=2) as manager:
        save(manager, make_state(1), mean_ap=0.25)
        save(manager, make_state(2), mean_ap=0.5)
    return directory


@pytest.fixture
def directory(two, tmp_path):
    """A copy of it to damage."""
    shutil.copytree(two, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def damage(path, kind):
    content = bytearray(path.read_bytes())
    match kind:
        case "flipped bit":
            content[len(content) // 2] ^= 4
        case "zeroed":
            content = bytearray(len(content))
        case "truncated":
            content = content[: len(content) // 2]
        case "emptied":
            content = b""
    path.write_bytes(content)
    if kind == "removed":
        path.unlink()


def arrays_of(directory, step):
    """The largest file, in which the values are."""
    files = [path for path in (directory / str(step)).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def test_restore_returns_the_saved_bits(two):
    with open_checkpoints(two, keep=2) as manager:
        restored = restore(manager, make_state(0))
        assert (restored.step, restored.skipped) == (2, ())
        assert bits(restored.state) == bits(make_state(2))
        assert bits(restore(manager, make_state(0), step=1).state) == bits(make_state(1))


def test_restore_follows_the_sharding_of_the_given_state(two):
    devices = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec())
    with open_checkpoints(two, keep=2) as manager:
        state = restore(manager, jax.device_put(make_state(0), devices)).state
    assert all(leaf.sharding == devices for leaf in jax.tree.leaves(state))
    assert bits(state) == bits(make_state(2))


def test_restore_without_checkpoints_is_none(tmp_path):
    with open_checkpoints(tmp_path / "new", keep=2) as manager:
        assert restore(manager, make_state(0)) is None


def test_digest_sees_every_single_bit():
    state = make_state(1, size=50)
    before = int(digest(state))
    leaves, structure = jax.tree.flatten(jax.device_get(state))
    for number, leaf in enumerate(leaves):
        raw = np.frombuffer(np.asarray(leaf).tobytes(), np.uint32)
        for place in range(raw.size):
            for bit in (0, 13, 31):
                changed = raw.copy()
                changed[place] ^= np.uint32(1 << bit)
                damaged = changed.view(leaf.dtype).reshape(np.shape(leaf))
                other = structure.unflatten([*leaves[:number], damaged, *leaves[number + 1 :]])
                assert int(digest(other)) != before


def test_digest_sees_exchanged_values():
    state = make_state(1)
    kernel = state.params["a"]["kernel"]
    exchanged = kernel.at[jnp.array([10, 20])].set(kernel[jnp.array([20, 10])])
    other = state.replace(params=state.params | {"a": {"kernel": exchanged}})
    assert int(digest(other)) != int(digest(state))
    # Two arrays of one shape, too.
    other = state.replace(
        params=state.params | {"a": {"kernel": state.opt_state[0]["trace"]}},
        opt_state=({"trace": kernel}, state.opt_state[1]),
    )
    assert int(digest(other)) != int(digest(state))


@pytest.mark.parametrize("kind", ["flipped bit", "zeroed", "truncated", "emptied", "removed"])
def test_no_damage_to_any_file_gives_another_state(kind, two, tmp_path):
    """Either the damaged file did not matter, or the checkpoint before is taken."""
    fell_back = set()
    for number, path in enumerate(sorted((two / "2").rglob("*"))):
        if path.is_dir():
            continue
        copy = tmp_path / str(number)
        shutil.copytree(two, copy)
        name = path.relative_to(two)
        damage(copy / name, kind)
        with open_checkpoints(copy, keep=2) as manager:
            restored = restore(manager, make_state(0))
        assert bits(restored.state) == bits(make_state(restored.step)), name
        assert restored.skipped == ((2,) if restored.step == 1 else ()), name
        if restored.step == 1:
            fell_back.add(path)
    assert arrays_of(two, 2) in fell_back


def test_restore_checks_the_digest_of_whole_files(directory, caplog):
    """As a bit that flips before Orbax computes its own checksums, or where it has none."""
    with open_checkpoints(directory / "other", keep=1) as manager:
        flipped = make_state(2)
        flipped = flipped.replace(params=flipped.params | {"b": jnp.float32(2.0000002)})
        save(manager, flipped)
    shutil.rmtree(directory / "2" / "default")
    shutil.copytree(directory / "other" / "2" / "default", directory / "2" / "default")
    shutil.rmtree(directory / "other")
    with open_checkpoints(directory, keep=2) as manager:
        restored = restore(manager, make_state(0))
    assert (restored.step, restored.skipped) == (1, (2,))
    assert re.search(r"checkpoint of step 2 .* digest is \d+, not the \d+", caplog.text)


def test_restore_of_damaged_checkpoints_only_is_an_error(directory):
    for step in (1, 2):
        damage(arrays_of(directory, step), "truncated")
    with (
        open_checkpoints(directory, keep=2) as manager,
        pytest.raises(CheckpointError, match=r"those of steps \[1, 2\] are damaged or of another"),
    ):
        restore(manager, make_state(0))


def test_restore_of_a_step_has_no_fallback(directory):
    damage(arrays_of(directory, 2), "flipped bit")
    with open_checkpoints(directory, keep=2) as manager:
        with pytest.raises(CheckpointError, match=r"those of steps \[2\] are damaged"):
            restore(manager, make_state(0), step=2)
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 7; it has \[1, 2\]"):
            restore(manager, make_state(0), step=7)


def test_restore_of_another_model_is_an_error(directory):
    with (
        open_checkpoints(directory, keep=2) as manager,
        pytest.raises(CheckpointError, match="of another model"),
    ):
        restore(manager, make_state(0, size=30))


def test_latest_and_best_are_kept(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: 0.3, 4: None, 5: 0.4, 6: None}
    for steps in ((1, 2, 3), (4, 5, 6)):  # Opened twice, as by a resumed run.
        with open_checkpoints(tmp_path, keep=2) as manager:
            for step in steps:
                save(manager, make_state(step, 10), scores[step])
    with open_checkpoints(tmp_path, keep=2) as manager:
        assert set(manager.all_steps()) == {2, 5, 6}
        assert best_step(read_scores(tmp_path), manager.all_steps()) == 2
        assert restore(manager, make_state(0, 10)).step == 6


def test_save_of_an_earlier_step_is_an_error(directory):
    with open_checkpoints(directory, keep=2) as manager:
        for step in (1, 2):
            with pytest.raises(CheckpointError, match=f"a checkpoint of step {step} or later"):
                save(manager, make_state(step))


def steps_in(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.is_dir())


def test_incomplete_newest_checkpoint_leaves_the_others_usable(directory):
    """As left by a process that was killed while it removed the newest one."""
    shutil.rmtree(directory / "2" / "default")
    for opened in (open_checkpoints(directory, keep=2), open_for_reading(directory)):
        with opened as manager:
            restored = restore(manager, make_state(0))
        assert (restored.step, restored.skipped) == (1, (2,))
        assert bits(restored.state) == bits(make_state(1))
    with open_checkpoints(directory, keep=2) as manager:
        manager.delete(2)
        save(manager, make_state(2))
        finish(manager)
        assert restore(manager, make_state(0)).step == 2


def test_unreadable_checkpoint_is_not_taken_for_a_damaged_one(directory):
    class Forbidden:
        """A manager on a machine that has no file handles left for the newest checkpoint."""

        directory = directory

        def all_steps(self):
            return [1, 2]

        def restore(self, step, args):
            raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(CheckpointError, match=r"step 2 in .* cannot be read: .*Too many"):
        restore(Forbidden(), make_state(0))


@pytest.mark.parametrize("name", ["[run]", "back\\slash", "star*", "what?"])
def test_paths_that_orbax_cannot_read_are_refused(name, tmp_path):
    for opened in (open_checkpoints(tmp_path / name, 1), open_for_reading(tmp_path / name)):
        with pytest.raises(InputError, match=r"must not contain (\[|\\|\*|\?)\."), opened:
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_save_refuses_values_that_are_not_finite(value, directory):
    state = make_state(3)
    trace = state.opt_state[0]["trace"].at[7].set(value)
    state = state.replace(opt_state=({"trace": trace}, state.opt_state[1]))
    with open_checkpoints(directory, keep=2) as manager:
        message = r"step 3 .* 1 of its 4 arrays .* \.opt_state\[0\]\['trace'\]\. .* step 2"
        with pytest.raises(NonFiniteStateError, match=message):
            save(manager, state)
        finish(manager)
        assert restore(manager, make_state(0)).step == 2
    assert steps_in(directory) == [1, 2]


# --- Scores ---------------------------------------------------------------------------------------


def test_record_score_decides_which_checkpoint_is_kept(tmp_path):
    """Scores are known after their checkpoint is saved."""
    with open_checkpoints(tmp_path, keep=1) as manager:
        for step, score in enumerate([0.2, 0.9, 0.3, 0.4], 1):
            save(manager, make_state(step, 10))
            record_score(tmp_path, step, score)
    assert read_scores(tmp_path) == {1: 0.2, 2: 0.9, 3: 0.3, 4: 0.4}
    assert steps_in(tmp_path) == [2, 4]


@pytest.mark.parametrize("kind", ["flipped bit", "zeroed", "truncated", "emptied", "removed"])
def test_damaged_scores_are_an_error_and_remove_nothing(kind, directory, caplog):
    damage(directory / SCORES_NAME, kind)
    with pytest.raises(InputError, match=SCORES_NAME):
        read_scores(directory)
    with open_checkpoints(directory, keep=1) as manager:
        assert restore(manager, make_state(0)).step == 2
        save(manager, make_state(3), mean_ap=0.1)
    assert SCORES_NAME in caplog.text
    # One of them may be the best.
    assert steps_in(directory) == [1, 2, 3]
    with pytest.raises(InputError, match=r"steps \[1, 2\] is lost"):
        best_step(read_scores(directory), [1, 2, 3])
    # Evaluated again.
    for step in (1, 2):
        record_score(directory, step, step / 10)
    assert best_step(read_scores(directory), [1, 2, 3]) == 2


def test_every_changed_digit_of_a_score_is_seen(directory):
    path = directory / SCORES_NAME
    text = path.read_text()
    for place in re.finditer(r"\d", text.partition('"digest"')[0]):
        digit = str((int(place[0]) + 1) % 10)
        path.write_text(text[: place.start()] + digit + text[place.end() :])
        with pytest.raises(InputError, match=r"damaged"):
            read_scores(directory)


def as_version_0_1_0(directory, scores):
    """Moves the scores to where Orbax kept them for version 0.1.0."""
    (directory / SCORES_NAME).unlink()
    for step in steps_in(directory):
        path = directory / str(step) / "_CHECKPOINT_METADATA"
        metadata = json.loads(path.read_text())
        metadata["custom_metadata"] = {"digest": metadata["custom_metadata"]["digest"]}
        if step in scores:
            metadata["item_handlers"]["metrics"] = "orbax.JsonCheckpointHandler"
            (directory / str(step) / "metrics").mkdir()
            score = json.dumps({"mean_ap": scores[step]})
            (directory / str(step) / "metrics" / "metrics").write_text(score)
        path.write_text(json.dumps(metadata))


def test_scores_of_version_0_1_0_are_read(directory):
    as_version_0_1_0(directory, {1: 0.75})
    assert read_scores(directory) == {1: 0.75}
    with open_checkpoints(directory, keep=1) as manager:
        restored = restore(manager, make_state(0))
        assert (restored.step, restored.config_digest) == (2, None)
        save(manager, make_state(3), mean_ap=0.1)
    assert read_scores(directory) == {1: 0.75, 3: 0.1}
    assert steps_in(directory) == [1, 3]


@pytest.mark.parametrize("damaged", ['{"mean_aq": 0.25}', '{"mean_ap": 0.', None])
def test_damaged_score_of_version_0_1_0_is_lost_and_not_forgotten(damaged, directory, caplog):
    as_version_0_1_0(directory, {1: 0.75, 2: 0.5})
    path = directory / "1" / "metrics" / "metrics"
    path.unlink() if damaged is None else path.write_text(damaged)
    with pytest.raises(InputError, match=r"steps \[1\] is lost"):
        best_step(read_scores(directory), [1, 2])
    with open_checkpoints(directory, keep=1) as manager:
        assert restore(manager, make_state(0)).step == 2
        save(manager, make_state(3))
    assert read_scores(directory) == {1: None, 2: 0.5}
    assert steps_in(directory) == [1, 2, 3]


def test_save_copies_the_state_before_returning(tmp_path):
    """The next steps overwrite the arrays on the device while they are being written."""
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = advance(make_state(4, size=1_000_000))
    with open_checkpoints(tmp_path, keep=1) as manager:
        expected = bits(state)
        save(manager, state)
        for _ in range(20):
            state = advance(state)
        finish(manager)
        restored = restore(manager, make_state(0, size=1_000_000))
    assert restored.step == 5
    assert bits(restored.state) == expected


def test_full_disk_keeps_the_last_checkpoint(tmp_path):
    with open_checkpoints(tmp_path, keep=1) as manager:
        save(manager, make_state(1))
        finish(manager)
        with full_disk():
            save(manager, make_state(2))
            message = r"could not be written to .* MB are free\. The last good one is of step 1\."
            with pytest.raises(CheckpointError, match=f"{message} .*too large"):
                finish(manager)
        assert restore(manager, make_state(0)).step == 1
        # With room again, it goes on.
        save(manager, make_state(3))
    with open_checkpoints(tmp_path, keep=1) as manager:
        assert list(manager.all_steps()) == [3]


@pytest.fixture
def compiled(tmp_path):
    """A checkpoint elsewhere: what saving compiles goes to the compilation cache before."""
    with open_checkpoints(tmp_path / "compiled", keep=1) as manager:
        save(manager, make_state(1))


@pytest.mark.usefixtures("compiled")
def test_failed_write_is_raised_on_leaving(tmp_path):
    with (
        full_disk(),
        pytest.raises(CheckpointError, match="There is no earlier one"),
        open_checkpoints(tmp_path / "run", keep=1) as manager,
    ):
        save(manager, make_state(1))


@pytest.mark.usefixtures("compiled")
def test_failed_write_does_not_hide_the_error_of_the_run(tmp_path):
    def run():
        with open_checkpoints(tmp_path / "run", keep=1) as manager:
            save(manager, make_state(1))
            raise ZeroDivisionError

    with full_disk(), pytest.raises(ZeroDivisionError):
        run()
