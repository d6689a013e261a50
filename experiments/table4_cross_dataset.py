"""One trained network on every data set that is prepared (Table IV).

    python -m experiments.table4_cross_dataset --checkpoint runs/market1501_gpu

--checkpoint is the work directory of a run; it is only read. Each pair of data sets is written to
a file of its own in --output, so that a table that was interrupted goes on where it was. The run's
own data set is in the table for comparison.

The paper does not say which mAP it reports, nor whether CUHK03 are the labeled or the detected
boxes: its numbers stand beside both. It has none with MSMT17 as the target. Not measured with this
code.
"""

from experiments.transfer import table_main

# In percent, by the data set that is trained on and the one that is tested on.
PAPER = {
    "market1501": {
        "dukemtmc_reid": {"rank-1": 52.4, "mAP": 33.8},
        "cuhk03_np": {"rank-1": 14.8, "mAP": 13.6},
    },
    "dukemtmc_reid": {
        "market1501": {"rank-1": 63.7, "mAP": 33.4},
        "cuhk03_np": {"rank-1": 11.0, "mAP": 9.9},
    },
    "cuhk03_np": {
        "market1501": {"rank-1": 62.9, "mAP": 36.5},
        "dukemtmc_reid": {"rank-1": 41.8, "mAP": 25.5},
    },
    "msmt17": {
        "market1501": {"rank-1": 66.8, "mAP": 38.1},
        "dukemtmc_reid": {"rank-1": 68.2, "mAP": 47.8},
        "cuhk03_np": {"rank-1": 20.8, "mAP": 18.7},
    },
}

if __name__ == "__main__":
    table_main(PAPER, __doc__)
