"""The command line that prepares a dataset."""

import argparse
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_prep.datasets import builder_class, list_datasets
from data_prep.errors import ExpectedError, describe, is_expected
from data_prep.preparing import prepare_dataset
from data_prep.progress import note, printable, replace_unprintable


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs `rmgl prepare DATASET [OPTIONS]`; see `prepare_main`.

    Args:
      arguments: the words after `rmgl prepare`; None is those of the program.
    """
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="rmgl prepare",
        usage="%(prog)s DATASET [OPTIONS]",
        description="Prepare a dataset once, from image files. Nothing is downloaded.",
        epilog="rmgl prepare DATASET --help shows the options of a dataset.",
    )
    parser.add_argument("dataset", choices=list_datasets())
    dataset = parser.parse_args(words[:1]).dataset
    prepare_main(dataset, words[1:], f"rmgl prepare {dataset}")


def prepare_main(
    dataset: str, arguments: Sequence[str] | None = None, prog: str | None = None
) -> None:
    """Prepares a dataset as the command line says, and prints its splits.

    Expected errors end the program with status 1 and one line, Ctrl-C with status 130.

    Args:
      dataset: one of `data_prep.datasets.list_datasets()`.
      arguments: the options; None is those of the program.
      prog: the command in its help; None is `python -m data_prep.DATASET`.
    """
    replace_unprintable()
    with report_errors(dataset):
        name, options = _parse(dataset, sys.argv[1:] if arguments is None else arguments, prog)
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = lambda message, *_: note(f"Warning: {message}")
            builder = prepare_dataset(name, **vars(options))
    for split, info in builder.info.splits.items():
        print(f"{split:8} {info.num_examples:7,} images")
    print(builder.data_path)


@contextmanager
def report_errors(name: str) -> Iterator[None]:
    """Ends the program with one line: status 1 for expected errors, status 130 for Ctrl-C.

    Args:
      name: what the command makes, for the line about an interruption.
    """
    try:
        yield
    except (ExpectedError, OSError) as error:
        if not is_expected(error):
            raise
        sys.exit(printable(describe(error), "\n"))
    except KeyboardInterrupt:
        note(f"{name}: interrupted, nothing was kept")
        sys.exit(130)


def _parse(
    dataset: str, arguments: Sequence[str], prog: str | None
) -> tuple[str, argparse.Namespace]:
    """The name of the dataset with its variant, and the other arguments of `prepare_dataset`."""
    builder = builder_class(dataset)
    variants = list(builder.builder_configs)
    parser = argparse.ArgumentParser(
        prog=prog or f"python -m data_prep.{dataset}",
        description=f"Prepare {dataset} once, from image files. Nothing is downloaded.",
    )
    parser.add_argument(
        "--source", type=Path, required=builder.needs_source, help="directory of the images"
    )
    parser.add_argument(
        "--data-dir", type=Path, help="directory of prepared datasets (default: TFDS's own)"
    )
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="accept other counts than the published ones, with a warning",
    )
    if builder.named_by_user:
        parser.add_argument(
            "--name",
            default="",
            dest="variant",
            help="name for the dataset (default: a digest of its file list)",
        )
    elif variants:
        parser.add_argument("--config", choices=variants, default=variants[0], dest="variant")
    # --data_dir is accepted too.
    hyphenated = (re.sub(r"^--(data|allow)_", r"--\1-", word) for word in arguments)
    options = parser.parse_args(list(hyphenated))
    variant = vars(options).pop("variant", "")
    return f"{dataset}/{variant}" if variant else dataset, options
