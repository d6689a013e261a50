"""Backbones in torchvision's names: loaded into every branch, saved, and errors of wrong files."""

import json
import os
import struct
import sys
import warnings
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data_prep.errors import InputError, MissingFileError, MissingPackageError
from rmgl_jax.config import ModelConfig
from rmgl_jax.models.pretrained import load_backbone, save_backbone
from tests.full_disk import full_disk
from tests.golden import seeded
from tests.tiny_model import random_variables
from tests.trees import assert_trees_close

CONFIG = ModelConfig(
    num_classes=5, image_size=(96, 32), depth=seeded.DEPTH, width=seeded.WIDTH, embed_dim=8
)


@pytest.fixture(scope="module")
def variables():
    return random_variables(CONFIG)


@pytest.fixture
def write(tmp_path):
    def write_file(arrays, name="resnet.safetensors"):
        save_file(arrays, tmp_path / name)
        return tmp_path / name

    return write_file


def test_every_branch_gets_a_copy_and_heads_are_kept(variables, write):
    arrays = seeded.resnet_arrays()
    loaded = load_backbone(write(arrays), variables, CONFIG)
    params, statistics = loaded["params"]["backbone"], loaded["batch_stats"]["backbone"]
    np.testing.assert_array_equal(
        params["stem"]["conv"]["kernel"], arrays["conv1.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(statistics["stem"]["bn"]["var"], arrays["bn1.running_var"])
    for branch in ("local2", "local3"):
        stage = params[f"{branch}_res4"]
        np.testing.assert_array_equal(
            stage["block1"]["conv_shortcut"]["kernel"],
            arrays["layer3.0.downsample.0.weight"].transpose(2, 3, 1, 0),
        )
        np.testing.assert_array_equal(
            stage["block2"]["bn3"]["scale"], arrays["layer3.1.bn3.weight"]
        )
    own = params["local2_res5"]["block1"]["bn1"]["bias"]
    assert own is not params["local3_res5"]["block1"]["bn1"]["bias"]  # or donating both would fail
    for head in ("reduction", "classifier"):
        assert_trees_close(loaded["params"][head], variables["params"][head])


def test_every_array_of_the_backbone_is_loaded(variables, write):
    loaded = load_backbone(write(seeded.resnet_arrays()), variables, CONFIG)
    for collection in ("params", "batch_stats"):
        before = jax.tree.leaves_with_path(variables[collection]["backbone"])
        after = jax.tree.leaves(loaded[collection]["backbone"])
        for (path, old), new in zip(before, after, strict=True):
            assert not np.array_equal(old, new), jax.tree_util.keystr(path)
            assert new.dtype == np.float32
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, variables)


def test_given_variables_are_not_changed(variables, write):
    copy = jax.tree.map(np.array, variables)
    load_backbone(write(seeded.resnet_arrays()), variables, CONFIG)
    assert_trees_close(variables, copy)


def test_half_precision_files_become_float32(variables, write):
    arrays = {name: value.astype(np.float16) for name, value in seeded.resnet_arrays().items()}
    loaded = load_backbone(write(arrays), variables, CONFIG)
    kernel = loaded["params"]["backbone"]["stem"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), arrays["conv1.weight"])


def test_classifier_and_counters_of_a_file_are_ignored(variables, write):
    arrays = seeded.resnet_arrays()
    extra = {
        "fc.weight": np.ones((1000, 128), np.float32),
        "fc.bias": np.ones(1000, np.float32),
        "bn1.num_batches_tracked": np.array(7),
        "layer1.0.bn1.num_batches_tracked": np.array(7),
    }
    expected = load_backbone(write(arrays), variables, CONFIG)
    loaded = load_backbone(write(arrays | extra, "full.safetensors"), variables, CONFIG)
    assert_trees_close(loaded, expected)


def test_a_file_without_layer4_warns_of_what_stays_random(variables, write):
    arrays = {k: v for k, v in seeded.resnet_arrays().items() if not k.startswith("layer4.")}
    with pytest.warns(UserWarning, match="no layer4: local2_res5, local3_res5"):
        loaded = load_backbone(write(arrays), variables, CONFIG)
    for branch in ("local2", "local3"):
        assert_trees_close(
            loaded["params"]["backbone"][f"{branch}_res5"],
            variables["params"]["backbone"][f"{branch}_res5"],
        )


def test_a_network_that_ends_at_res4_needs_no_layer4(write):
    config = replace(CONFIG, last_stage="res4")
    variables = random_variables(config)
    arrays = seeded.resnet_arrays()
    short = {k: v for k, v in arrays.items() if not k.startswith("layer4.")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = load_backbone(write(arrays), variables, config)
        part = load_backbone(write(short, "short.safetensors"), variables, config)
    assert_trees_close(whole, part)


def test_all_mismatches_are_reported_together(variables, write):
    arrays = seeded.resnet_arrays()
    del arrays["layer2.1.conv2.weight"], arrays["bn1.running_var"]
    arrays["layer3.7.conv1.weight"] = np.ones((1, 1, 1, 1), np.float32)
    arrays["conv1.weight"] = np.ones((4, 4, 7, 7), np.float32)
    arrays["layer1.0.bn1.bias"] = np.full(4, np.nan, np.float32)
    with pytest.raises(InputError, match=r"resnet\.safetensors") as error:
        load_backbone(write(arrays), variables, CONFIG)
    for part in (
        "missing: bn1.running_var, layer2.1.conv2.weight;",
        "unexpected: layer3.7.conv1.weight;",
        "of a wrong shape: conv1.weight (file (4, 4, 7, 7), network (4, 3, 7, 7));",
        "not finite: layer1.0.bn1.bias.",
    ):
        assert part in str(error.value)


def test_values_that_a_network_cannot_have_are_refused(variables, write):
    arrays = seeded.resnet_arrays()
    largest = np.finfo(np.float32).max
    harm = [
        ("too large for float32", "layer1.0.bn1.bias", np.float64, 1e300),
        ("too large for float32", "layer1.0.bn1.bias", np.float64, -2 * float(largest)),
        ("not finite", "conv1.weight", np.float64, np.inf),
        ("variances below 0", "bn1.running_var", np.float32, -1e-6),
        ("I8", "conv1.weight", np.int8, 1),
        ("I64", "bn1.weight", np.int64, 1),
        ("BOOL", "bn1.weight", bool, 1),
        ("C64", "layer2.0.conv1.weight", np.complex64, 1),
    ]
    for number, (part, name, dtype, value) in enumerate(harm):
        changed = arrays[name].astype(dtype)
        changed.flat[-1] = value
        with pytest.raises(InputError, match=f"{part}.*{name}|{name}.*{part}"):
            load_backbone(
                write(arrays | {name: changed}, f"{number}.safetensors"), variables, CONFIG
            )


def test_float64_files_become_float32(variables, write):
    arrays = seeded.resnet_arrays()
    wide = {name: value.astype(np.float64) for name, value in arrays.items()}
    wide["bn1.running_var"][0] = np.float64(np.finfo(np.float32).max)
    expected = load_backbone(write(arrays), variables, CONFIG)
    loaded = load_backbone(write(wide, "wide.safetensors"), variables, CONFIG)
    assert loaded["batch_stats"]["backbone"]["stem"]["bn"]["var"][0] == wide["bn1.running_var"][0]
    assert_trees_close(loaded["params"], expected["params"])


def test_types_that_numpy_lacks_are_refused_with_the_name_of_the_array(variables, tmp_path):
    header = {"conv1.weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    encoded = json.dumps(header).encode()
    file = tmp_path / "half.safetensors"
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + bytes(4))
    with pytest.raises(InputError, match=r"half\.safetensors .*conv1\.weight \(BF16\)"):
        load_backbone(file, variables, CONFIG)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_pipes_devices_and_huge_files_are_refused(variables, tmp_path, suffix):
    pipe, device, huge = (tmp_path / f"{name}{suffix}" for name in ("pipe", "device", "huge"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    huge.touch()
    os.truncate(huge, 2**40)
    for path in (pipe, device, huge):
        with pytest.raises(InputError, match=str(path)):
            load_backbone(path, variables, CONFIG)


def test_torch_files_equal_safetensors_files(variables, write, tmp_path):
    torch = pytest.importorskip("torch", reason="reads a .pth file")
    arrays = seeded.resnet_arrays()
    expected = load_backbone(write(arrays), variables, CONFIG)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    tensors["conv1.weight"] = torch.nn.Parameter(tensors["conv1.weight"])
    tensors["bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save(tensors, tmp_path / "resnet.pth")
    assert_trees_close(load_backbone(tmp_path / "resnet.pth", variables, CONFIG), expected)


def test_torch_files_of_other_tensors_are_refused(variables, tmp_path):
    torch = pytest.importorskip("torch", reason="reads a .pth file")
    arrays = {name: torch.from_numpy(value) for name, value in seeded.resnet_arrays().items()}
    name = "layer1.0.bn1.bias"
    changes = {
        "sparse": {name: arrays[name].to_sparse()},
        "meta": {name: arrays[name].to("meta")},
        "integer": {name: arrays[name].int()},
        "complex": {name: arrays[name].to(torch.complex64)},
        "large": {name: arrays[name].double() + 1e300},
        "keys": {7: arrays[name]},
        "text": {name: "text"},
    }
    for kind, change in changes.items():
        torch.save(arrays | change, tmp_path / f"{kind}.pth")
        expected = rf"{kind}\.pth" if kind in ("keys", "text") else rf"{kind}\.pth.*{name}"
        with pytest.raises(InputError, match=expected):
            load_backbone(tmp_path / f"{kind}.pth", variables, CONFIG)


def test_a_part_of_layer4_is_an_error(variables, write):
    arrays = seeded.resnet_arrays()
    del arrays["layer4.0.conv1.weight"]
    with pytest.raises(InputError, match=r"missing: layer4.0.conv1.weight\."):
        load_backbone(write(arrays), variables, CONFIG)


def test_variables_of_another_configuration_are_refused(write):
    other = random_variables(replace(CONFIG, granularities=(2,)))
    with pytest.raises(ValueError, match=r"no params/backbone/local3_res3"):
        load_backbone(write(seeded.resnet_arrays()), other, CONFIG)


def test_other_files_raise_errors(variables, tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.safetensors"):
        load_backbone(tmp_path / "none.safetensors", variables, CONFIG)
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"\.safetensors, \.pth or \.pt .*weights\.h5"):
        load_backbone(tmp_path / "weights.h5", variables, CONFIG)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(InputError, match=r"cut\.safetensors"):
        load_backbone(tmp_path / "cut.safetensors", variables, CONFIG)


def test_torch_files_without_torch_name_the_extra(variables, tmp_path, monkeypatch):
    (tmp_path / "resnet.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it fails
    with pytest.raises(MissingPackageError, match=r"resnet\.pth .*rmgl_jax\[torch\]"):
        load_backbone(tmp_path / "resnet.pth", variables, CONFIG)


def test_branches_that_separate_inside_a_stage_get_its_blocks(write):
    depth = (1, 1, 3, 1)
    config = replace(CONFIG, depth=depth, branch_after="res4_1")
    one_branch = replace(CONFIG, depth=depth, granularities=(1,))
    file = write({})
    save_backbone(file, random_variables(one_branch, seed=5), one_branch)
    arrays = load_file(file)
    loaded = load_backbone(file, random_variables(config), config)
    for collection in ("params", "batch_stats"):
        backbone = loaded[collection]["backbone"]
        own = {f"local{s}_{stage}" for s in (2, 3) for stage in ("res4", "res5")}
        assert set(backbone) == {"stem", "res2", "res3", "res4"} | own
        assert list(backbone["res4"]) == ["block1"]
        assert sorted(backbone["local3_res4"]) == ["block2", "block3"]
    params = loaded["params"]["backbone"]
    for module, block in (("res4", 0), ("local2_res4", 1), ("local3_res4", 2)):
        np.testing.assert_array_equal(
            params[module][f"block{block + 1}"]["bn2"]["scale"],
            arrays[f"layer3.{block}.bn2.weight"],
        )
    again = file.with_name("again.safetensors")
    save_backbone(again, loaded, config, branch=1)
    assert_trees_close(load_file(again), arrays)


@pytest.mark.parametrize("branch", [0, 1])
def test_a_saved_branch_is_what_was_loaded_into_it(variables, branch, tmp_path):
    file = tmp_path / "saved.safetensors"
    save_backbone(file, variables, CONFIG, branch)
    assert load_file(file).keys() == seeded.resnet_arrays().keys()
    loaded = load_backbone(file, variables, CONFIG)
    source = f"local{CONFIG.granularities[branch]}"
    for collection in ("params", "batch_stats"):
        before, after = variables[collection]["backbone"], loaded[collection]["backbone"]
        expected = {"stem": before["stem"], "res2": before["res2"]}
        for stage in ("res3", "res4", "res5"):
            for target in ("local2", "local3"):
                expected[f"{target}_{stage}"] = before[f"{source}_{stage}"]
        assert_trees_close(after, expected)
    assert [f.name for f in tmp_path.iterdir()] == ["saved.safetensors"]


def test_strides_that_a_saved_file_records_are_checked(variables, tmp_path):
    """Names and shapes are the same wherever the strides are."""
    path = tmp_path / "resnet.safetensors"
    save_backbone(path, variables, CONFIG)
    other = replace(CONFIG, stride_in_1x1=not CONFIG.stride_in_1x1)
    with pytest.raises(InputError, match="stride_in_1x1"):
        load_backbone(path, variables, other)
    save_backbone(path, variables, other)
    load_backbone(path, variables, other)


def test_saving_leaves_the_old_file_when_it_fails(variables, tmp_path):
    file = tmp_path / "saved.safetensors"
    save_backbone(file, variables, CONFIG)
    before = file.read_bytes()
    with full_disk(), pytest.raises(OSError, match=r"\.saved\.safetensors|large"):
        save_backbone(file, variables, CONFIG, branch=1)
    assert file.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["saved.safetensors"]


def test_saving_to_a_wrong_path_raises_errors(variables, tmp_path):
    with pytest.raises(InputError, match=r"\.safetensors .*x\.pth"):
        save_backbone(tmp_path / "x.pth", variables, CONFIG)
    with pytest.raises(ValueError, match=r"branch must be in 0\.\.1 .* got 2"):
        save_backbone(tmp_path / "x.safetensors", variables, CONFIG, branch=2)
    with pytest.raises(MissingFileError, match=r"absent"):
        save_backbone(tmp_path / "absent" / "x.safetensors", variables, CONFIG)
