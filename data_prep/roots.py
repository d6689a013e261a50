"""Where a data set lies: its root directory, under the names in use, one level up or down."""

from collections.abc import Callable
from pathlib import Path

ROOT_NAMES = {
    "market1501": ("Market-1501-v15.09.15", "Market-1501", "Market1501", "Market"),
    "dukemtmc_reid": ("DukeMTMC-reID", "DukeMTMC", "Duke"),
    "cuhk03_np": ("CUHK03-NP", "CUHK03", "cuhk03_release", "cuhk03_new", "CUHK-03"),
    "msmt17": ("MSMT17_V1", "MSMT17_V2", "MSMT17"),
}
"""Directory names in use, by set. Case and punctuation do not matter."""


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def find_root(
    source: Path, dataset: str, is_root: Callable[[Path], bool], expected: str, help_text: str = ""
) -> Path:
    """The data set's root: `source`, a directory in it, or the directory it lies in.

    Args:
      source: where the user says the data is.
      dataset: a key of `ROOT_NAMES`; other values have no names of their own.
      is_root: whether a directory has the set's layout.
      expected: the layout in words, for the error.
      help_text: what else the error says, e.g. where to request the data.

    Raises:
      FileNotFoundError: no root; says where was looked and what for.
      ValueError: several directories could be the root.
    """
    source = Path(source).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(
            f"{dataset}: {source} is not a directory; wanted one that holds {expected}. {help_text}"
        )
    source = source.resolve()
    children = sorted(child for child in source.iterdir() if child.is_dir())
    names = {_plain(name): owner for owner, owned in ROOT_NAMES.items() for name in owned}
    owner = {child: names.get(_plain(child.name)) for child in children}
    # A directory under the set's own name comes before one that merely has the layout, since
    # several sets share Market-1501's; one under another set's name is not taken for this one.
    unnamed = [child for child in children if owner[child] is None or dataset not in ROOT_NAMES]
    for group in (
        [source],
        [child for child in children if owner[child] == dataset],
        [source.parent],
        unnamed,
    ):
        roots = [directory for directory in group if is_root(directory)]
        if len(roots) > 1:
            raise ValueError(
                f"{dataset}: several directories in {source} could be the set: "
                f"{', '.join(root.name for root in roots)}. Pass the one that is meant."
            )
        if roots:
            return roots[0]
    looked = [source, *children, source.parent]
    raise FileNotFoundError(
        f"{dataset}: wanted a directory that holds {expected}; looked in "
        f"{', '.join(str(directory) for directory in looked[:12])}"
        f"{f' and {len(looked) - 12} more' if len(looked) > 12 else ''}. {help_text}"
    )
