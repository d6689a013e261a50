"""Hostile content of the JSON files of a run, which a report and a sweep read."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from tests.torture.attempt import ODD_WORDS, Attempt

_FILES = ("config.json", "result.json", "run.json", "metrics.jsonl")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 10**30, 1e308, -1e308, "", "nan", [], {}, [[]], {"a": {}}, [None]),
    *(float("nan"), float("inf"), "x" * 10000, [0] * 10000, "<script>alert(1)</script>"),
)
_TEXTS = (
    *("", "null", "1", "[]", "{}", '"text"', "[[[", "{" * 100_000, "[" * 100_000, "\0" * 50),
    *('{"a": NaN}', '{"a": 1}{"a": 2}', '{"a": 1e999}', "\ufeff{}", '{"kind": "train"}'),
    *('{"step": 1}', '{"kind": 1, "step": "x"}', '{"kind": "train", "step": null, "loss": "x"}'),
)


def read_files(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A run one of whose files is replaced, or has one value replaced."""
    run = directory / "run"
    run.mkdir()
    for name in _FILES:
        shutil.copy(base / "run" / name, run / name)
    name = rng.choice(_FILES)
    path = run / name
    if rng.random() < 0.4:
        text = rng.choice(_TEXTS)
        path.write_text(text)
        change = f"is {text[:40]!r}"
    else:
        lines = path.read_text().splitlines() if name == "metrics.jsonl" else [path.read_text()]
        trees = [json.loads(line) for line in lines]
        # As earlier versions wrote it: a checksum has every change refused before it is read.
        for tree in trees:
            for checksum in ("file_digest", "crc32"):
                tree.pop(checksum, None)
        change = replace_value(rng.choice(trees), rng)
        path.write_text("".join(json.dumps(tree) + "\n" for tree in trees))
    return Attempt(f"{name}: {change}", _read, ())


def replace_value(tree: Any, rng: random.Random) -> str:
    """Replaces, removes or adds one value at a random place; says which."""
    place = []
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return "unchanged"
        key = rng.choice(keys)
        place.append(str(key))
        inner = tree[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.3:
            break
        tree = inner
    if isinstance(tree, dict) and rng.random() < 0.2:
        del tree[key]
        return f"without {'.'.join(place)}"
    value = rng.choice((rng.choice(_VALUES), rng.choice(ODD_WORDS)))
    tree[key] = value
    return f"{'.'.join(place)} = {value!r}"[:100]


def _read() -> None:
    from rmgl_jax.report.page import render
    from rmgl_jax.report.run_files import read_run

    Path("page.html").write_text(render(read_run(Path("run"))), errors="replace")
