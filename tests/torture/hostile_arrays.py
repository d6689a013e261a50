"""Hostile MATLAB files, backbone weights and model files."""

import hashlib
import json
import os
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from safetensors.numpy import load_file, save

from tests.torture import processes
from tests.torture.attempt import ODD_WORDS, Attempt

_PEOPLE = 4


def prepare_matlab(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """CUHK03 in its original files, one of which is hostile."""
    root = directory / "source"
    root.mkdir()
    write_matlab(root / "cuhk-03.mat", rng.choice((None, *_IMAGES)) if rng.random() < 0.4 else None)
    protocol = protocol_arrays()
    kinds = ("value", "value", "bytes", "images", "container")
    kind = rng.choice(kinds)
    change, must_refuse = "", False
    path = root / "cuhk03_new_protocol_config_labeled.mat"
    if kind == "value":
        name = rng.choice(list(protocol))
        change, value, must_refuse = _odd_array(rng, name, protocol[name])
        if value is None:
            del protocol[name]
        else:
            protocol[name] = value
        change = f"{name}: {change}"
    if kind == "container":
        change = rng.choice(("HDF5", "text", "FIFO", "empty", "/dev/zero"))
        if change == "HDF5":
            shutil.copy(root / "cuhk-03.mat", path)
        elif change == "FIFO":
            os.mkfifo(path)
        elif change == "/dev/zero":
            path.symlink_to(change)
        else:
            path.write_text("x" * 500 if change == "text" else "")
    else:
        scipy.io.savemat(path, protocol)
    if kind == "bytes":
        target = rng.choice((path, root / "cuhk-03.mat"))
        change = f"{target.name}: {mutate(target, rng)}"
    if kind == "images":
        change = rng.choice(_IMAGES)
        write_matlab(root / "cuhk-03.mat", change)
    words = ("prepare", "cuhk03_np", "--source", "source", "--data-dir", "data", "--allow-partial")
    description = f"{kind}: {change}"
    return Attempt(description, processes.command, ("rmgl_jax", *words), must_refuse)


def protocol_arrays() -> dict[str, Any]:
    """The arrays of a valid protocol file."""
    names = [f"1_{p:03d}_{1 + n // 5}_{n + 1:02d}.png" for p in range(1, 5) for n in range(10)]
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    people = np.repeat(np.arange(1, _PEOPLE + 1), 10)
    index = np.arange(1, len(names) + 1)
    return {
        "filelist": cells,
        "labels": people[:, None].astype(float),
        "train_idx": index[people <= 2][None].astype(float),
        "query_idx": index[(people > 2) & (index % 10 == 1)][None].astype(float),
        "gallery_idx": index[(people > 2) & (index % 10 == 6)][None].astype(float),
    }


def _odd_array(rng: random.Random, name: str, array: Any) -> tuple[str, Any, bool]:
    """A description, another value of an array, and if accepting it would be wrong."""
    if name == "filelist":
        cells = array.copy()
        word = rng.choice(ODD_WORDS[:-1])
        cells[0, 0] = word
        choices: list[tuple[str, Any, bool]] = [
            (f"name {word[:40]!r}", cells, True),
            ("numbers", np.arange(40.0), True),
            ("missing", None, True),
        ]
        return rng.choice(choices)
    number = rng.choice((np.nan, np.inf, -np.inf, -1.0, 0.5, 1e19, 1e300, -3.0))
    changed = array.copy()
    changed.flat[0] = number
    return rng.choice(
        [
            (f"one value {number}", changed, True),
            ("text", "abc", True),
            ("missing", None, True),
            ("complex", array + 1j, True),
            ("empty", np.zeros((0, 0)), True),
            ("three axes", np.ones((2, 2, 2)), False),
            ("cells", np.array([[1, "a"]], object), True),
        ]
    )


_IMAGES = ("wrong type", "wrong shape", "huge", "missing variant", "link outside", "zero size")


def write_matlab(path: Path, oddity: str | None) -> None:
    """Writes `cuhk-03.mat` with small images, of which the first is odd."""
    rng = np.random.default_rng(0)
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        kind = h5py.ref_dtype
        people = file.create_dataset("people", (10, _PEOPLE), kind)
        for person in range(_PEOPLE):
            for number in range(10):
                name = f"image_{person}_{number}"
                if person == number == 0 and oddity == "link outside":
                    file[name] = h5py.ExternalLink("/etc/hostname", "/x")
                    continue
                if person == number == 0 and oddity == "huge":
                    image = file.create_dataset(
                        name, (3, 2**20, 2**20), np.uint8, chunks=(1, 1024, 1024)
                    )
                else:
                    shape = {"wrong shape": (2, 20), "zero size": (3, 0, 20)}
                    odd = person == number == 0 and oddity
                    pixels = rng.integers(0, 256, shape.get(odd or "", (3, 20, 40)), dtype=np.uint8)
                    if odd == "wrong type":
                        pixels = pixels.astype(np.float64)
                    image = file.create_dataset(name, data=pixels)
                people[number, person] = image.ref
        for variant in ("labeled", "detected"):
            if oddity == "missing variant" and variant == "labeled":
                continue
            pairs = file.create_dataset(variant, (1, 5), kind)
            for pair in range(5):
                pairs[0, pair] = people.ref


def mutate(path: Path, rng: random.Random) -> str:
    """Changes bytes of a file, or cuts it; says what."""
    content = bytearray(path.read_bytes())
    how = rng.choice(("cut", "bytes", "bytes", "head", "grown"))
    if how == "cut":
        content = content[: rng.randrange(len(content))]
    elif how == "grown":
        content += rng.randbytes(rng.choice((1, 1000)))
    else:
        end = min(len(content), 512) if how == "head" else len(content)
        for _ in range(rng.randint(1, 10)):
            content[rng.randrange(end)] = rng.randrange(256)
    path.write_bytes(bytes(content))
    return how


def load_weights(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A hostile file of backbone weights."""
    path = directory / "weights.safetensors"
    arrays = dict(load_file(base / "weights.safetensors"))
    name = rng.choice(sorted(arrays))
    variance = rng.choice(sorted(name for name in arrays if name.endswith("running_var")))
    changes: dict[str, tuple[Any, bool]] = {
        "NaN": (_with(arrays, name, np.full_like(arrays[name], np.nan)), True),
        "1e300 as float64": (_with(arrays, name, np.full(arrays[name].shape, 1e300)), True),
        "int8": (_with(arrays, name, arrays[name].astype(np.int8)), True),
        "complex": (_with(arrays, name, arrays[name].astype(np.complex64)), True),
        "bool": (_with(arrays, name, arrays[name] > 0), True),
        "a negative variance": (_with(arrays, variance, -1 - arrays[variance]), True),
        "a wrong shape": (_with(arrays, name, arrays[name].reshape(-1, 1)), True),
        "a scalar": (_with(arrays, name, np.float32(1)), True),
        "one array less": ({n: a for n, a in arrays.items() if n != name}, True),
        "a name with markup": (_with(arrays, "[red]layer9.[/]", arrays[name]), True),
        "a name with a line break": (_with(arrays, "layer1\nError: x", arrays[name]), True),
        "float16": (_with(arrays, name, arrays[name].astype(np.float16)), False),
        "nothing": ({}, True),
    }
    kind = rng.choice((*changes, "bytes", "header", "suffix", "special"))
    must_refuse = False
    if kind in changes:
        content, must_refuse = changes[kind]
        try:
            path.write_bytes(save({n: np.asarray(a, order="C") for n, a in content.items()}))
        except Exception:  # The library does not write this type.
            path.write_bytes(b"")
    elif kind == "special":
        kind = rng.choice(("FIFO", "/dev/zero", "directory"))
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        else:
            path.symlink_to(kind)
        must_refuse = True
    else:
        path.write_bytes(save(arrays))
        if kind == "bytes":
            kind = f"changed bytes: {mutate(path, rng)}"
        elif kind == "header":
            kind, must_refuse = _odd_header(path, rng), True
        else:
            other = path.with_suffix(rng.choice((".pth", ".pt", ".npz", ".SAFETENSORS", "")))
            path.rename(other)
            path, kind, must_refuse = other, f"suffix {other.suffix!r}", True
    return Attempt(kind, _load_weights, (str(base / "run"), path.name), must_refuse)


def _with(arrays: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return arrays | {name: value}


def _odd_header(path: Path, rng: random.Random) -> str:
    """Replaces the header of a safetensors file by a hostile one."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    body = content[8 + length :]
    tree = json.loads(content[8 : 8 + length])
    names = [name for name in tree if name != "__metadata__"]
    name, other = rng.sample(names, 2)
    kind = rng.choice(
        ("long", "overlap", "outside", "no JSON", "deep", "type", "negative", "shape")
    )
    if kind == "overlap":
        tree[name]["data_offsets"] = tree[other]["data_offsets"]
    elif kind == "outside":
        tree[name]["data_offsets"] = [0, 2**50]
    elif kind == "type":
        tree[name]["dtype"] = rng.choice(("F64", "I8", "C64", "X9", "F8_E4M3", ""))
    elif kind == "negative":
        tree[name]["data_offsets"] = [-4, 0]
    elif kind == "shape":
        tree[name]["shape"] = rng.choice(([2**62, 4], [0], [-1], []))
    header = json.dumps(tree).encode()
    if kind == "no JSON":
        header = b"{" * 50
    elif kind == "deep":
        header = b'{"a":' + b"[" * 100_000
    size = 2**62 if kind == "long" else len(header)
    path.write_bytes(struct.pack("<Q", size) + header + body)
    return f"header: {kind}"


def _load_weights(run: str, path: str) -> None:
    import jax
    import jax.numpy as jnp

    from rmgl_jax.models.pretrained import load_backbone
    from rmgl_jax.models.rmgl import RMGL
    from rmgl_jax.training.run_directory import read_config

    config = read_config(Path(run)).model
    images = jax.ShapeDtypeStruct((1, *config.image_size, 3), jnp.float32)
    variables = jax.eval_shape(RMGL(config).init, jax.random.key(0), images)
    load_backbone(path, variables, config)


def load_model_file(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A model file whose bytes, metadata or configuration are hostile."""
    path = directory / "model.safetensors"
    shutil.copy(base / "model.safetensors", path)
    kind = rng.choice(("bytes", "header", "configuration", "configuration", "metadata"))
    must_refuse = False
    if kind == "bytes":
        change = mutate(path, rng)
    elif kind == "header":
        change, must_refuse = _odd_header(path, rng), True
    else:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        tree = json.loads(content[8 : 8 + length])
        metadata = tree["__metadata__"]
        if kind == "metadata":
            name = rng.choice(sorted(metadata))
            change = f"{name} = {rng.choice(ODD_WORDS)[:40]!r}"
            metadata[name] = rng.choice(ODD_WORDS[:-1]).encode(errors="replace").decode()
        else:
            from tests.torture.hostile_run_files import replace_value

            config = json.loads(metadata["config"])
            change = replace_value(config, rng)
            metadata["config"] = json.dumps(config)
        # Whoever forges a file also forges its digest.
        signed = {n: text for n, text in metadata.items() if n != "metadata_digest"}
        text = json.dumps(signed, sort_keys=True).encode()
        metadata["metadata_digest"] = hashlib.sha256(text).hexdigest()
        header = json.dumps(tree).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    return Attempt(f"{kind}: {change}", _load_model_file, (path.name,), must_refuse)


def _load_model_file(path: str) -> None:
    from rmgl_jax.export.model_file import load_model

    load_model(path)
