"""A run directory belongs to one configuration and names every difference of another."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from data_prep.errors import InputError
from experiments import market_rmgl, synthetic_rmgl
from rmgl_jax.checked_json import json_digest
from rmgl_jax.config import ExperimentConfig, LossConfig
from rmgl_jax.experiment import presets
from rmgl_jax.training.run_directory import (
    CONFIG_FORMAT,
    CONFIG_NAME,
    MIGRATIONS,
    ConfigChangedError,
    Migration,
    check_config_digest,
    config_digest,
    config_to_json,
    differences,
    init_run_directory,
    migrate,
    read_config,
)
from tests.tiny import tiny_config

CONFIG = tiny_config()


@pytest.mark.parametrize(
    "config",
    [
        ExperimentConfig(),
        CONFIG,
        market_rmgl.PRESETS["cpu"],
        replace(CONFIG, loss=LossConfig(margin=None), pretrained="resnet50.pth sha256:0123"),
        replace(CONFIG, model=replace(CONFIG.model, receptive_stripes=(3,))),
    ],
)
def test_read_config_returns_what_was_written(config, tmp_path):
    init_run_directory(config, tmp_path / "new" / "run")
    assert read_config(tmp_path / "new" / "run") == config


def test_init_run_directory_accepts_the_same_configuration(tmp_path):
    init_run_directory(CONFIG, tmp_path)
    before = (tmp_path / CONFIG_NAME).stat()
    init_run_directory(CONFIG, tmp_path)
    assert (tmp_path / CONFIG_NAME).stat() == before
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_NAME]


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "checkpoints/9/state"])
def test_only_a_run_that_has_begun_keeps_its_configuration(name, tmp_path):
    """The command that was mended after an error at the start need not use another directory."""
    init_run_directory(replace(CONFIG, dataset="other"), tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints").mkdir()
    init_run_directory(CONFIG, tmp_path)
    assert read_config(tmp_path) == CONFIG
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("something")
    with pytest.raises(ConfigChangedError, match="dataset was tiny, is now other"):
        init_run_directory(replace(CONFIG, dataset="other"), tmp_path)
    assert read_config(tmp_path) == CONFIG


def test_init_run_directory_refuses_another_and_names_every_difference(tmp_path):
    init_run_directory(CONFIG, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    other = replace(
        CONFIG,
        dataset="other",
        loss=LossConfig(margin=None),
        model=replace(CONFIG.model, granularities=(2, 3)),
    )
    with pytest.raises(ConfigChangedError) as refused:
        init_run_directory(other, tmp_path)
    for difference in (
        "dataset was tiny, is now other",
        "loss.margin was 0.6, is now None",
        "model.granularities was [2], is now [2, 3]",
    ):
        assert difference in str(refused.value)
    assert read_config(tmp_path) == CONFIG


def test_init_run_directory_compares_weights_by_their_digest(tmp_path):
    before = replace(CONFIG, pretrained="resnet50.pth sha256:0123")
    init_run_directory(before, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    init_run_directory(replace(CONFIG, pretrained="my own.pth sha256:0123"), tmp_path)
    assert read_config(tmp_path) == before
    for other in ("resnet50.pth sha256:4567", "none"):
        with pytest.raises(ConfigChangedError, match=rf"pretrained was res.* is now {other}"):
            init_run_directory(replace(CONFIG, pretrained=other), tmp_path)


def leaves(config, prefix=""):
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_init_run_directory_compares_every_field(tmp_path):
    init_run_directory(CONFIG, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    path = tmp_path / CONFIG_NAME
    written = json.loads(path.read_text())
    for name in leaves(CONFIG):
        changed = json.loads(json.dumps(written))
        *parents, last = name.split(".")
        part = changed
        for parent in parents:
            part = part[parent]
        part[last] = "something else"
        path.write_text(json.dumps(changed))
        with pytest.raises(ConfigChangedError, match=rf": {name} was something else, is now"):
            init_run_directory(CONFIG, tmp_path)


def without(tree, name):
    """A copy of a tree without one of its fields."""
    copied = json.loads(json.dumps(tree))
    *parents, last = name.split(".")
    part = copied
    for parent in parents:
        part = part[parent]
    del part[last]
    return copied


def test_read_config_refuses_every_missing_field(tmp_path):
    for name in leaves(CONFIG):
        (tmp_path / CONFIG_NAME).write_text(json.dumps(without(config_to_json(CONFIG), name)))
        with pytest.raises(InputError, match=rf"config\.json .*missing {name}"):
            read_config(tmp_path)


def test_no_flipped_bit_gives_another_configuration(tmp_path):
    """It is refused, or changed nothing (white space)."""
    init_run_directory(CONFIG, tmp_path)
    path, recorded = tmp_path / CONFIG_NAME, config_digest(tmp_path)
    content = path.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(content), 53):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = read_config(tmp_path)
            check_config_digest(tmp_path, recorded, step=1)
        except InputError:
            refused += 1
        else:
            assert found == CONFIG
    assert refused > len(content) / 20


def test_config_digest_depends_on_every_field_and_no_white_space(tmp_path):
    tree = config_to_json(CONFIG)
    digests = {json_digest(tree)} | {json_digest(without(tree, name)) for name in leaves(CONFIG)}
    assert len(digests) == 1 + len(list(leaves(CONFIG)))
    init_run_directory(CONFIG, tmp_path)
    (tmp_path / CONFIG_NAME).write_text(json.dumps(tree, sort_keys=True))
    check_config_digest(tmp_path, json_digest(tree), step=1)
    check_config_digest(tmp_path, None, step=1)  # As checkpoints of version 0.1.0.
    with pytest.raises(InputError, match=r"0123 .* step 7"):
        check_config_digest(tmp_path, "0123", step=7)


def test_differences_lists_changed_leaves():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None, "gone": 1}
    new = {"a": {"b": 2, "c": [1, 2]}, "d": None, "came": 2}
    assert list(differences(old, new)) == [
        "a.b was 1, is now 2",
        "came was None, is now 2",
        "gone was 1, is now None",
    ]
    assert not list(differences(old, old))


def test_init_run_directory_says_why_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run .*[Nn]ot a d"):
        init_run_directory(CONFIG, tmp_path / "file" / "run")
    with pytest.raises(OSError, match=r"/file .*exists"):
        init_run_directory(CONFIG, tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""


def test_read_config_refuses_other_directories(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        read_config(tmp_path)


NESTED = b"[" * 100_000


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{}", NESTED], ids=len)
def test_damaged_config_is_refused_and_kept(content, tmp_path):
    (tmp_path / CONFIG_NAME).write_bytes(content)
    for use in (read_config, lambda workdir: init_run_directory(CONFIG, workdir)):
        with pytest.raises(ValueError, match=r"config\.json is damaged: "):
            use(tmp_path)
    assert (tmp_path / CONFIG_NAME).read_bytes() == content


def as_format_3(config):
    """The tree of config.json in format 3: nothing is frozen."""
    tree = config_to_json(config) | {"format": 3}
    del tree["optimizer"]["frozen_until"]
    return tree


def as_format_2(config, **old):
    """The tree of config.json in format 2: poolings by kind of stripe. The default is RMGL's."""
    tree = as_format_3(config) | {"format": 2}
    for path in ("original", "receptive"):
        for name in ("abp", "pool", "test_pool"):
            del tree["model"][f"{path}_{name}"]
    for name in ("branch_after", "global_stride", "global_classifier"):
        del tree["model"][name]
    del tree["loss"]["triplet_normalized"]
    poolings = {"uniform_pool": "max", "balanced_pool": "mean"}
    tree["model"] |= {"abp": "always", "abp_paths": ["original"]} | poolings | old
    return tree


def as_version_0_1_0(config):
    """The text of config.json as version 0.1.0 wrote it: other names, no format."""
    tree = as_format_2(config)
    del tree["format"]
    train = tree["train"]
    train["persons"], train["images"] = train.pop("num_ids"), train.pop("num_instances")
    train["batch_norm"] = train["batch_norm"].replace("synchronized", "synchronised")
    return json.dumps(tree)


def test_read_config_migrates_earlier_formats(tmp_path):
    earlier = [as_version_0_1_0(CONFIG)]
    earlier += [json.dumps(as_format(CONFIG)) for as_format in (as_format_2, as_format_3)]
    for text in earlier:
        (tmp_path / CONFIG_NAME).write_text(text)
        assert read_config(tmp_path) == CONFIG


def test_init_run_directory_resumes_a_run_of_version_0_1_0(tmp_path):
    text = as_version_0_1_0(CONFIG)
    (tmp_path / CONFIG_NAME).write_text(text)
    (tmp_path / "run.json").write_text("{}")
    init_run_directory(CONFIG, tmp_path)
    assert (tmp_path / CONFIG_NAME).read_text() == text
    other = replace(CONFIG, train=replace(CONFIG.train, num_ids=3))
    with pytest.raises(ConfigChangedError, match=r"train.num_ids was 4, is now 3"):
        init_run_directory(other, tmp_path)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ({}, {}),
        ({"abp": "off"}, {"original_abp": "off", "original_pool": "max"}),
        ({"abp": "off", "uniform_pool": "mean"}, {"original_abp": "off", "receptive_pool": "mean"}),
        ({"balanced_pool": "max"}, {"original_pool": "max"}),
        ({"abp_paths": []}, {"original_abp": "off", "original_pool": "max"}),
        (
            {"abp_paths": ["original", "receptive"]},
            {"receptive_abp": "always", "receptive_pool": "mean"},
        ),
        # What a model was trained with, and what it is evaluated with.
        (
            {"abp": "test"},
            {"original_abp": "test", "original_pool": "max", "original_test_pool": "mean"},
        ),
        (
            {"abp": "test", "uniform_pool": "mean"},
            {"original_abp": "test", "receptive_pool": "mean"},
        ),
    ],
)
def test_read_config_migrates_abp_and_poolings_of_format_2(old, expected, tmp_path):
    config = replace(CONFIG, model=replace(CONFIG.model, **expected))
    (tmp_path / CONFIG_NAME).write_text(json.dumps(as_format_2(config, **old)))
    assert read_config(tmp_path) == config


def test_migrated_reductions_of_a_path_that_is_absent_are_the_default(tmp_path):
    config = presets.pcb(CONFIG)
    text = json.dumps(as_format_2(config, abp="off", uniform_pool="mean"))
    (tmp_path / CONFIG_NAME).write_text(text)
    assert read_config(tmp_path) == config


def test_migrate_applies_the_changes_of_every_later_format():
    tree = json.loads(as_version_0_1_0(CONFIG))
    later = dict(MIGRATIONS) | {
        CONFIG_FORMAT + 1: Migration(
            renamed={"train.num_ids": "data.ids"}, added={"model.attention": "none"}
        ),
        CONFIG_FORMAT + 2: Migration(
            values={"model.attention": {"none": "off"}}, added={"tag": None}
        ),
    }
    found = migrate(tree | {"data": {}}, "config.json", later)
    expected = config_to_json(CONFIG)
    expected |= {
        "format": CONFIG_FORMAT + 2,
        "tag": None,
        "data": {"ids": expected["train"].pop("num_ids")},
    }
    expected["model"]["attention"] = "off"
    assert found == expected
    assert tree == json.loads(as_version_0_1_0(CONFIG))
    # What a file of the later format says itself is kept.
    expected["model"]["attention"] = "none"
    assert migrate(expected, "config.json", later) == expected


def test_migrations_lead_to_the_written_format():
    assert sorted(MIGRATIONS) == list(range(2, CONFIG_FORMAT + 1))
    assert config_to_json(CONFIG)["format"] == CONFIG_FORMAT


def changed(**changes):
    return json.dumps(config_to_json(CONFIG) | changes)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (changed(modle={}), "unknown modle"),
        (changed(model=config_to_json(CONFIG)["model"] | {"widht": 3}), "unknown model.widht"),
        (changed(eval={"flip": True}), "missing eval.batch_size, eval.k1"),
        (changed(model=1), "model.* 1"),
        (changed(dataset=1), "dataset .* 1"),
        (changed(train=[[1]]), r"train.* \[\[1\]\]"),
        (changed(train={}, format=1), "format 1, of rmgl_jax 0.1.0.* missing train.accumulate"),
        (changed(format=CONFIG_FORMAT + 1), f"format {CONFIG_FORMAT + 1}"),
        (changed(format="x"), "format 'x'"),
    ],
)
def test_read_config_names_what_it_cannot_read(content, named, tmp_path):
    (tmp_path / CONFIG_NAME).write_text(content)
    with pytest.raises(ValueError, match=rf"config\.json .*{named}"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("experiment", "preset"),
    [(market_rmgl, "cpu"), (synthetic_rmgl, "demo"), (synthetic_rmgl, "tiny")],
)
def test_run_of_version_0_1_0_continues_when_its_command_is_repeated(experiment, preset, tmp_path):
    written = json.loads((Path(__file__).parent / "golden" / "configs_0_1_0.json").read_text())
    (tmp_path / CONFIG_NAME).write_text(json.dumps(written[preset]))
    init_run_directory(experiment.PRESETS[preset], tmp_path)  # another one is refused
    assert read_config(tmp_path) == experiment.PRESETS[preset]
