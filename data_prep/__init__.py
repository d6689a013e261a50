"""Re-ID datasets: from image files to TFDS (ArrayRecord, no TensorFlow).

`prepare_dataset` prepares a dataset once and returns its builder; `read_records` reads a split of
it with random access. Importing this package also makes the datasets known to TFDS, so that
`tfds.builder("market1501")` finds them.
"""

from data_prep.datasets import dataset_names, published_test_sets, register_with_tfds
from data_prep.preparing import find_prepared, prepare_dataset
from data_prep.records import Record, Records, open_prepared, read_records

__all__ = [
    "Record",
    "Records",
    "dataset_names",
    "find_prepared",
    "open_prepared",
    "prepare_dataset",
    "published_test_sets",
    "read_records",
]

register_with_tfds()
