"""Fuzzes one parser by atheris: `python -m tests.torture.atheris_target PARSER SECONDS SEED BASE`.

Nothing of the project is imported before atheris can instrument it.
"""

import sys
from pathlib import Path

import atheris


def main(parser: str, seconds: str, seed: str, base: str) -> None:
    """Fuzzes a parser for some seconds; ends with a status other than 0 at the first finding."""
    with atheris.instrument_imports(include=["data_prep", "rmgl_jax", "scipy.io", "safetensors"]):
        from tests.torture.parsers import PARSERS, expected, seeds

        valid = seeds(parser, Path(base))
        for data in valid:
            expected(PARSERS[parser], data)
    corpus = Path("corpus")
    corpus.mkdir()
    for number, data in enumerate(valid):
        (corpus / str(number)).write_bytes(data)
    options = (f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=20", "-rss_limit_mb=8192")
    atheris.Setup(
        [sys.argv[0], *options, "-verbosity=1", str(corpus)],
        lambda data: expected(PARSERS[parser], data),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
