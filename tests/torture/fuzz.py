"""Fuzzes the parsers of names, lists, MAT files and weights, guided by coverage with atheris.

Without atheris, Hypothesis chooses bytes and changes of valid inputs.
"""

import importlib.util
import random
import re
import shutil
import time
from pathlib import Path

from tests.torture import processes
from tests.torture.campaign import Record
from tests.torture.parsers import PARSERS, expected, seeds
from tests.torture.scene import Scene

_SECONDS = 8
_RUNS = re.compile(r"(?:Done |runs: )(\d+)")


def case(scene: Scene, rng: random.Random, name: str) -> Record:
    """Fuzzes one parser for some seconds in a process of its own.

    Outcomes: `accepted`, nothing was found; `traceback` and the other defects of `Ended`.
    """
    parser = rng.choice(list(PARSERS))
    directory = scene.root / "cases" / name.replace("/", "-").replace(" ", "_")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    seed = rng.randrange(1, 2**31)
    guided = importlib.util.find_spec("atheris") is not None
    words = (parser, str(_SECONDS), str(seed), str(scene.base))
    run = (processes.real_command, ("tests.torture.atheris_target", *words))
    if not guided:
        run = (_fuzz_by_hypothesis, (parser, _SECONDS, seed, scene.base))
    ended = processes.run(*run, directory, None, 6.0 * _SECONDS + 30)
    found = _RUNS.findall(ended.output)
    fault = f"{'atheris' if guided else 'Hypothesis'}, seed {seed}"
    count = int(found[-1]) if found else 0
    outcome = ended.defect or ("accepted" if ended.status == 0 else "traceback")
    detail = "" if outcome == "accepted" else ended.last_words
    return Record(parser, fault, outcome, count, detail)


def _fuzz_by_hypothesis(parser: str, seconds: float, seed: int, base: Path) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as hypothesis_seed
    from hypothesis import strategies as st

    valid = seeds(parser, base)
    end, runs = time.monotonic() + seconds, 0
    patches = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(max_size=8)), max_size=8)
    inputs = st.one_of(st.binary(max_size=400), st.tuples(st.sampled_from(valid), patches))

    @settings(
        max_examples=300,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def check(drawn: bytes | tuple[bytes, list[tuple[int, bytes]]]) -> None:
        nonlocal runs
        runs += 1
        expected(PARSERS[parser], drawn if isinstance(drawn, bytes) else _patch(*drawn))

    while time.monotonic() < end:
        hypothesis_seed(seed)(check)()
        seed += 1
    print(f"runs: {runs}")


def _patch(data: bytes, patches: list[tuple[int, bytes]]) -> bytes:
    content = bytearray(data)
    for place, part in patches:
        start = place % max(1, len(content))
        content[start : start + len(part)] = part
    return bytes(content)
