"""Re-ID data sets: from files on disk to TFDS (ArrayRecord, no TensorFlow). Never imports jax.

`prepare_dataset` prepares a set once and gives its builder; `read_records` reads a split of it at
random; `open_prepared` opens it again from its directory, which is what a worker process needs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_prep.preparing import prepare_dataset
    from data_prep.records import Records, open_prepared, read_records

__all__ = ["Records", "open_prepared", "prepare_dataset", "read_records"]


def __getattr__(name: str) -> Any:
    """Import on first use: a process that only checks images should not load TFDS."""
    if name == "prepare_dataset":
        from data_prep.preparing import prepare_dataset

        return prepare_dataset
    if name in __all__:
        from data_prep import records

        return getattr(records, name)
    raise AttributeError(f"module 'data_prep' has no attribute {name!r}")
