"""A work directory belongs to one configuration, and says how another differs."""

import json
from dataclasses import fields, is_dataclass, replace

import pytest

from experiments import market_rmgl
from rmgl_jax.config import ExperimentConfig, LossConfig
from rmgl_jax.training.run_directory import (
    CONFIG_NAME,
    ConfigChangedError,
    differences,
    init_run_directory,
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
def test_the_configuration_comes_back(config, tmp_path):
    init_run_directory(config, tmp_path / "new" / "run")
    assert read_config(tmp_path / "new" / "run") == config


def test_the_same_configuration_is_welcome(tmp_path):
    init_run_directory(CONFIG, tmp_path)
    before = (tmp_path / CONFIG_NAME).stat()
    init_run_directory(CONFIG, tmp_path)
    assert (tmp_path / CONFIG_NAME).stat() == before
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_NAME]


def test_another_is_refused_with_every_field_that_differs(tmp_path):
    init_run_directory(CONFIG, tmp_path)
    other = replace(
        CONFIG,
        dataset="other",
        loss=LossConfig(margin=None),
        model=replace(CONFIG.model, granularities=(2, 3)),
    )
    with pytest.raises(ConfigChangedError) as refused:
        init_run_directory(other, tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} holds a run of another configuration: dataset was tiny, is now other; "
        "loss.margin was 0.6, is now None; model.granularities was [2], is now [2, 3]. "
        "Use another work directory, or the old values."
    )
    assert read_config(tmp_path) == CONFIG


def leaves(config, prefix=""):
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_every_field_counts(tmp_path):
    init_run_directory(CONFIG, tmp_path)
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


def test_differences():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": None, "gone": 1}
    new = {"a": {"b": 2, "c": [1, 2]}, "d": None, "came": 2}
    assert list(differences(old, new)) == [
        "a.b was 1, is now 2",
        "came was None, is now 2",
        "gone was 1, is now None",
    ]
    assert not list(differences(old, old))


def test_only_the_writer_makes_the_directory(tmp_path):
    init_run_directory(CONFIG, tmp_path / "run", write=False)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"work directory .*file/run can't be written: .*[Nn]ot a d"):
        init_run_directory(CONFIG, tmp_path / "file" / "run")
    with pytest.raises(OSError, match=r"work directory .*/file can't be written: "):
        init_run_directory(CONFIG, tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""


def test_what_is_no_work_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no work directory of a run: .*config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{}"])
def test_a_damaged_configuration(content, tmp_path):
    (tmp_path / CONFIG_NAME).write_bytes(content)
    for use in (read_config, lambda workdir: init_run_directory(CONFIG, workdir)):
        with pytest.raises(ValueError, match=r"config\.json is damaged: "):
            use(tmp_path)
    assert (tmp_path / CONFIG_NAME).read_bytes() == content


@pytest.mark.parametrize(
    "content", ['{"dataset": "tiny", "modle": {}}', '{"model": {"widht": 3}}', '{"model": 1}']
)
def test_a_configuration_of_another_version(content, tmp_path):
    (tmp_path / CONFIG_NAME).write_text(content)
    with pytest.raises(ValueError, match=r"config\.json is not a configuration of this version"):
        read_config(tmp_path)
