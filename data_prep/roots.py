"""Find the root directory of a dataset, under its known names, one level up or down."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from data_prep.errors import InputError, MissingFileError
from data_prep.files import expand


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def find_root(
    source: str | PathLike[str],
    dataset: str,
    root_names: Mapping[str, Sequence[str]],
    is_root: Callable[[Path], bool],
    expected: str,
    help_text: str = "",
) -> Path:
    """Finds the root of a dataset: `source`, a directory in it, or the directory it lies in.

    A directory named as another dataset is not taken for this one, since several have the same
    layout.

    Args:
      source: the directory that the user gave.
      dataset: name of the dataset.
      root_names: directory names by dataset; case and punctuation do not matter. A dataset without
        any may be in a directory of any name.
      is_root: tells whether a directory has the layout of the dataset.
      expected: the layout in words, for the error.
      help_text: added to the error, for instance where to request the images.

    Raises:
      MissingFileError: no root; says which directories were searched, and for what.
      InputError: several directories could be the root.
    """
    source = expand(source)
    if not source.is_dir():
        raise MissingFileError(
            f"{dataset}: {source} is not a directory; expected one that contains {expected}. "
            f"{help_text}"
        )
    source = source.resolve()
    children = sorted(child for child in source.iterdir() if child.is_dir())
    owners = {_plain(name): owner for owner, names in root_names.items() for name in names}
    owner = {child: owners.get(_plain(child.name)) for child in children}
    any_name = not root_names.get(dataset)

    def is_readable_root(directory: Path) -> bool:
        try:
            return is_root(directory)
        except PermissionError:  # such as lost+found
            return False

    for group in (
        [source],
        # A directory named as the dataset comes before one that only has the layout, and both come
        # before the one that holds the source.
        [child for child in children if owner[child] == dataset],
        [child for child in children if owner[child] is None or any_name],
        [source.parent],
    ):
        roots = [directory for directory in group if is_readable_root(directory)]
        if len(roots) > 1:
            raise InputError(
                f"{dataset}: several directories in {source} could be the dataset: "
                f"{', '.join(root.name for root in roots)}. Pass one of them."
            )
        if roots:
            return roots[0]
    searched = [source, *children, source.parent]
    raise MissingFileError(
        f"{dataset}: found no directory that contains {expected}; searched "
        f"{', '.join(str(directory) for directory in searched[:12])}"
        f"{f' and {len(searched) - 12} more' if len(searched) > 12 else ''}. {help_text}"
    )
