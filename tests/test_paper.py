"""Numbers of the paper in the code: tables, figures, run cards and defaults.

`paper/paper.toml` has the numbers as the paper prints them, with the paper's names of tables and
rows; its head says how they were read. The code is compared with that file and with nothing else.
"""

import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

import experiments
from data_prep.preparing import make_builder
from experiments import table4_cross_dataset
from rmgl_jax.config import EvalConfig, ExperimentConfig, RandomErasingConfig
from rmgl_jax.evaluation.reranking import rerank, rerank_blocks
from rmgl_jax.experiment import presets

FACTS = tomllib.loads((Path(__file__).parent / "paper" / "paper.toml").read_text())
TABLES = FACTS["table"]
MODULES = {
    name: importlib.import_module(f"experiments.{name}")
    for _, name, _ in pkgutil.iter_modules(experiments.__path__)
}
SWEEPS = {name: module.SWEEP for name, module in MODULES.items() if hasattr(module, "SWEEP")}
CARDS = {name: module for name, module in MODULES.items() if name.endswith("_rmgl")}

MARKET_DUKE = ("market1501", "dukemtmc_reid")
CUHK03 = ("cuhk03_np/labeled", "cuhk03_np/detected")
MSMT17 = ("msmt17/train", "msmt17/trainval")  # The paper does not say which.
SOURCES = {
    "Market": "market1501",
    "Duke": "dukemtmc_reid",
    "CUHK03": "cuhk03_np",
    "MSMT17": "msmt17",
}


def pairs(cells, datasets, suffix=""):
    """Numbers by dataset and measure, from a row of (mAP, rank-1) for each dataset."""
    both = zip(datasets, cells[::2], cells[1::2], strict=True)
    return {
        name + suffix: {"mAP": mean_ap, "rank-1": rank_1}
        for name, mean_ap, rank_1 in both
        if mean_ap != "-"
    }


def msmt(cells):
    return pairs(cells * 2, MSMT17)


def method(name):
    """A method's name without its reference: "PAP+PS[18]†" is "PAP+PS"."""
    return name.partition("[")[0]


def others(table, convert):
    """Numbers of the other methods of a table."""
    return {
        method(name): convert(row)
        for name, row in TABLES[table].items()
        if not name.startswith("RMGL")
    }


def ours(table, datasets):
    """Numbers of RMGL in a table, with and without re-ranking."""
    rows = TABLES[table]
    return pairs(rows["RMGL(Ours)"], datasets) | pairs(rows["RMGL+RK"], datasets, " re-ranked")


def component(name):
    """Numbers of a row of Table V."""
    return pairs(TABLES["V"][name], MARKET_DUKE)


def row_of_components(name):
    """Name of our row for a row of Table V: names of directories have no blanks and brackets."""
    name = name.removesuffix(" (BL)").replace(" only ", "-only-")
    return re.sub(r" \((.*)\)", r"-\1", name)


RMGL = component("2+3-stripe+RP+ABP+RSA")
RMGL_MSMT17 = msmt(TABLES["III"]["RMGL(Ours)"])
RMGL_CUHK03 = pairs(TABLES["II"]["RMGL(Ours)"], CUHK03)


def with_less_weight_decay():
    """Numbers of 5e-4 in Fig. 11, from those of 1e-3 and the differences in the text."""
    found = {
        "Market-1501": {"market1501": RMGL["market1501"]},
        "CUHK03": {"cuhk03_np/labeled": RMGL_CUHK03["cuhk03_np/labeled"]},
        "MSMT17": RMGL_MSMT17,
    }
    return {
        name: {
            measure: round(numbers[measure] - difference, 1)
            for measure, difference in zip(
                ("mAP", "rank-1"), FACTS["differences"][text], strict=True
            )
        }
        for text, by_name in found.items()
        for name, numbers in by_name.items()
    }


# Numbers of our rows; rows that are not here must have none.
EXPECTED_ROWS = {
    "design_choices": {},
    "fig7_rsa_parameters": {},
    "fig8_partition_numbers": {"s_2": component("2-stripe+RP+RSA")},
    "fig9_partition_depth": {
        f"{stripes}-stripe-res3": component(f"{stripes}-stripe only RP") for stripes in (2, 3)
    },
    "fig10_triplet_margin": {"margin-0.6": RMGL},
    "fig11_weight_decay": {
        "5e-4": with_less_weight_decay(),
        "1e-3": RMGL | {"cuhk03_np/labeled": RMGL_CUHK03["cuhk03_np/labeled"]} | RMGL_MSMT17,
    },
    "table1_market_duke": {
        "RMGL": ours("I", MARKET_DUKE),
        "MGN": pairs(TABLES["I"]["MGN[16]"], MARKET_DUKE),
    },
    "table2_cuhk03": {"RMGL": ours("II", CUHK03)},
    "table3_msmt17": {"RMGL": RMGL_MSMT17},
    "table5_components": {row_of_components(name): component(name) for name in TABLES["V"]},
    "table6_augmentation": {
        name.removesuffix(" (BL)"): component(name) for name in ("2-stripe (BL)", "2+3-stripe (BL)")
    }
    | {name: pairs(row[::2], MARKET_DUKE) for name, row in TABLES["VI"].items()},
}
EXPECTED_METHODS = {
    "table1_market_duke": others("I", lambda row: pairs(row, MARKET_DUKE)),
    "table2_cuhk03": others("II", lambda row: pairs(row, CUHK03)),
    "table3_msmt17": others("III", msmt),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_rows_of_tables_and_figures(name):
    assert {row.name: row.paper for row in SWEEPS[name].rows if row.paper} == EXPECTED_ROWS[name]
    assert SWEEPS[name].published == EXPECTED_METHODS.get(name, {})


def test_pairs_of_table_iv():
    found = {"paper": table4_cross_dataset.PAPER, **table4_cross_dataset.OTHERS}
    expected = {}
    for source, rows in TABLES["IV"].items():
        for name, row in rows.items():
            key = "paper" if name.startswith("RMGL") else method(name)
            key += "" if name.endswith("†") else "*"
            numbers = pairs(row, (*MARKET_DUKE, "cuhk03_np"))
            expected.setdefault(key, {})[SOURCES[source]] = numbers
    assert found == expected


@pytest.mark.parametrize("name", CARDS)
def test_run_cards_have_the_numbers_of_their_tables(name):
    family = {
        "market_rmgl": {
            key: value for key, value in ours("I", MARKET_DUKE).items() if "market" in key
        },
        "duke_rmgl": {key: value for key, value in ours("I", MARKET_DUKE).items() if "duke" in key},
        "cuhk03_rmgl": ours("II", CUHK03),
        "msmt17_rmgl": RMGL_MSMT17,
    }
    expected = family.get(name, {})
    assert getattr(CARDS[name], "PAPER", {}) == expected
    _, _, text = CARDS[name].__doc__.partition("\nPaper: ")
    in_text = {float(number) for number in re.findall(r"\b\d\d\.\d\b", text.split("\n\n")[0])}
    assert in_text == {number for numbers in expected.values() for number in numbers.values()}


@pytest.mark.parametrize("path", ["README.md", "docs/reproduction.md"])
def test_pages_have_the_numbers_of_the_paper(path):
    text = (Path(__file__).parents[1] / path).read_text()
    # The first row that states them: that of the paper, or of RMGL as in the paper.
    row = re.search(r"^\| (?:paper|RMGL, ResNet-50, 384x128).*", text, re.MULTILINE)
    found = [float(number) for number in re.findall(r"\b\d\d\.\d\b", row.group())]
    plain, reranked = TABLES["I"]["RMGL(Ours)"], TABLES["I"]["RMGL+RK"]
    assert found in ([plain[1], plain[0]], [plain[1], plain[0], reranked[1], reranked[0]])


def test_tables_of_the_paper_agree():
    """Rows that two tables have are the same, and gains are differences."""
    assert TABLES["V"]["2+3-stripe+RP+ABP+RSA"] == TABLES["I"]["RMGL(Ours)"]
    for name, row in TABLES["VI"].items():
        baseline = TABLES["V"][f"{name.partition('+R')[0]} (BL)"]
        gains = [round(mine - base, 1) for mine, base in zip(row[::2], baseline, strict=True)]
        assert gains == row[1::2], name
        assert name not in TABLES["V"] or TABLES["V"][name] == row[::2]


def settings(config):
    """A configuration's values for the settings that the paper states."""
    model, augment, optimizer = config.model, config.augment, config.optimizer
    return {
        "image_size": list(model.image_size),
        "granularities": list(model.granularities),
        "embedding_width_of_a_feature": model.embed_dim,
        "flip_probability": augment.flip_probability,
        "p_c": augment.shifting.crop_probability,
        "r_c": augment.shifting.min_crop,
        "r_h_min": augment.shifting.min_height,
        "r_w_min": augment.shifting.min_width,
        "fill": augment.shifting.fill,
        "margin": config.loss.margin,
        "persons": config.train.num_ids,
        "images_of_a_person": config.train.num_instances,
        "momentum": optimizer.momentum,
        "warmup_from": optimizer.warmup_from,
        "learning_rate": optimizer.learning_rate,
        "warmup_epochs": optimizer.warmup_epochs,
        "decay_factor": optimizer.decay_factor,
        "decay_epochs": list(optimizer.decay_epochs),
        "weight_decay": optimizer.weight_decay,
        "head_multiplier": optimizer.head_multiplier,
    }


@pytest.mark.parametrize(
    "config",
    [
        ExperimentConfig(),
        *(presets.presets_for(name)["paper"] for name in ("market1501", "cuhk03_np/detected")),
        *(presets.sweep_presets("msmt17/train")[name] for name in ("paper", "gpu")),
    ],
)
def test_defaults_are_those_of_the_paper(config):
    assert settings(config) == FACTS["implementation"]
    assert config.eval.flip
    # The paper has no number of epochs; ours must be above its last decay.
    assert config.train.epochs == FACTS["ours"]["epochs"] > config.optimizer.decay_epochs[-1]


def test_defaults_are_those_of_the_cited_papers():
    cited = FACTS["cited"]
    expected = cited["re-ranking"]
    evaluation = EvalConfig()
    found = {"k1": evaluation.k1, "k2": evaluation.k2, "lambda": evaluation.lambda_value}
    assert found == expected
    for function in (rerank, rerank_blocks):
        parameters = inspect.signature(function).parameters
        names = {"k1": "k1", "k2": "k2", "lambda": "lambda_value"}
        assert {key: parameters[name].default for key, name in names.items()} == expected
    erasing = RandomErasingConfig()
    assert {name: getattr(erasing, name) for name in cited["random-erasing"]} == cited[
        "random-erasing"
    ]
    mgn, pcb = (change(ExperimentConfig()) for change in (presets.mgn, presets.pcb))
    assert list(mgn.model.granularities) == cited["mgn"]["granularities"]
    assert mgn.loss.margin == cited["mgn"]["margin"]
    assert pcb.model.granularities == (cited["pcb"]["stripes"],)


def test_published_sizes_of_datasets():
    """The paper's gallery of Market-1501 has the 3,819 junk images that evaluations drop."""
    facts = FACTS["datasets"]
    market, duke = (make_builder(name).expected.splits for name in MARKET_DUKE)
    assert [market["train"].images, market["train"].identities] == facts["market_train"]
    assert market["query"].images == facts["market_query_images"]
    assert market["query"].identities == facts["market_test_persons"]
    assert market["gallery"].images == facts["market_gallery_images"] - 3_819
    assert [duke["train"].images, duke["train"].identities] == facts["duke_train"]
    assert [duke["query"].images, duke["query"].identities] == facts["duke_query"]
    assert duke["gallery"].images == facts["duke_gallery_images"]
