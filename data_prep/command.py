"""The command line that the data sets share."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from data_prep.preparing import prepare_dataset
from data_prep.progress import note


def main(dataset: str, configs: Sequence[str] = (), arguments: Sequence[str] | None = None) -> None:
    """Prepare a data set as the command line says, and print its splits.

    Args:
      dataset: name of the set.
      configs: its configurations; the first is the default.
      arguments: the command line; None is `sys.argv`'s.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m data_prep.{dataset}", description=f"Prepare {dataset} once, from files."
    )
    if dataset != "synthetic":
        parser.add_argument(
            "--source",
            type=Path,
            required=True,
            help="directory of the images; nothing is downloaded",
        )
        parser.add_argument(
            "--allow_partial",
            action="store_true",
            help="accept other counts than the published ones",
        )
    parser.add_argument("--data_dir", type=Path, help="where prepared sets are kept (TFDS's own)")
    if dataset == "folder":
        parser.add_argument("--name", help="name to keep the set under (a digest of its file list)")
    if configs:
        parser.add_argument("--config", choices=configs, default=configs[0])
    options = vars(parser.parse_args(arguments))
    config = options.pop("config", None) or options.pop("name", None)
    options.pop("name", None)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: note(f"Warning: {message}")
        try:
            builder = prepare_dataset(f"{dataset}/{config}" if config else dataset, **options)
        except (FileNotFoundError, ValueError) as error:
            sys.exit(str(error))
        except KeyboardInterrupt:
            note(f"{dataset}: interrupted, nothing was kept")
            sys.exit(130)
    for split, info in builder.info.splits.items():
        print(f"{split:8} {info.num_examples:7,} images")
    print(builder.data_path)
