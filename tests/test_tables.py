"""Rows of the tables and figures: their configurations. `test_paper.py` has their numbers."""

import contextlib
import dataclasses
import functools
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import experiments
from data_prep.errors import InputError
from experiments import market_rmgl, synthetic_rmgl
from rmgl_jax.config import ExperimentConfig, RandomErasingConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.options import SweepOptions
from rmgl_jax.experiment.sweep import make_plan
from rmgl_jax.models.rmgl import RMGL, feature_layout
from rmgl_jax.training.losses import triplet_groups
from tests.tiny_model import variable_shapes

SWEEPS = {
    name: module.SWEEP
    for _, name, _ in pkgutil.iter_modules(experiments.__path__)
    if hasattr(module := importlib.import_module(f"experiments.{name}"), "SWEEP")
}
ROWS = {
    "design_choices": 16,
    "fig10_triplet_margin": 11,
    "fig11_weight_decay": 4,
    "fig7_rsa_parameters": 24,
    "fig8_partition_numbers": 5,
    "fig9_partition_depth": 18,
    "table1_market_duke": 5,
    "table2_cuhk03": 5,
    "table3_msmt17": 5,
    "table5_components": 24,
    "table6_augmentation": 18,
}


# Changes of the network without components.
BASELINE = {
    "model.paths": ("original",),
    "model.original_abp": "off",
    "model.original_pool": "max",
}


def row_of(name, row):
    (found,) = (each for each in SWEEPS[name].rows if each.name == row)
    return found


def config_of(name, row, base=None):
    return row_of(name, row).overrides(base or presets.paper("market1501"))


def changed(config, base):
    """The leaves in which a configuration differs from another, as "model.paths"."""

    def leaves(tree, prefix=""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    old = dict(leaves(dataclasses.asdict(base)))
    return {key: new for key, new in leaves(dataclasses.asdict(config)) if new != old[key]}


def test_every_table_and_figure_is_here():
    assert {name: len(SWEEPS[name].rows) for name in SWEEPS} == ROWS


@pytest.mark.parametrize("name", SWEEPS)
def test_names_fit_modules_and_directories(name):
    table = SWEEPS[name]
    assert table.name == name
    for row in table.rows:
        assert set(row.name).isdisjoint(" /()\\"), row.name


@pytest.mark.parametrize("name", SWEEPS)
def test_every_listed_preset_has_rows(name):
    """Rows are impossible if their stripes do not divide the map; a preset must allow some."""
    listed = importlib.import_module(f"experiments.{name}").__doc__.partition("Presets")[2]
    for preset, base in SWEEPS[name].presets.items():
        possible = []
        for row in SWEEPS[name].rows:
            with contextlib.suppress(InputError):
                possible.append(row.overrides(base))
        assert possible, preset
        assert f"\n  {preset} " in listed


@pytest.mark.parametrize("name", SWEEPS)
def test_every_row_builds_a_network(name):
    """Only shapes are computed, at the paper's size."""
    base = presets.paper("market1501")
    networks = set()
    for row in SWEEPS[name].rows:
        config = row.overrides(base)
        assert config.dataset == "market1501"
        if not row.name.endswith("-as-published"):
            assert config.train == base.train  # the same budget for all
        networks.add(config.model)
        triplet_groups(feature_layout(config.model), config.loss)
    for model in networks:
        count = len(feature_layout(model))
        output = shapes(model)
        assert output.logits.shape == (1, count, 751)
        assert output.embedding.shape == (1, 256 * count)


@functools.cache
def shapes(model):
    """Shapes of the output for one image, of a network with minimal depth and width."""
    network = RMGL(dataclasses.replace(model, depth=(1, 1, 1, 1), width=4))
    images = jax.ShapeDtypeStruct((1, *model.image_size, 3), jnp.float32)
    output, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    return output


@pytest.mark.parametrize(
    ("name", "impossible"),
    [
        ("table5_components", {"RMGL-2+3+4"}),
        ("fig8_partition_numbers", {"s_4", "s_8"}),
        *(
            (name, set())
            for name in SWEEPS
            if name not in ("table5_components", "fig8_partition_numbers")
        ),
    ],
)
def test_small_presets_lack_some_rows(name, impossible, tmp_path):
    table = SWEEPS[name]
    for preset in ("demo", "tiny"):
        options = SweepOptions(experiment=table.presets[preset], workdir=tmp_path)
        plan, problems = make_plan(table.rows, options)
        assert {planned.row.name for planned in plan} == {
            row.name for row in table.rows if row.name not in impossible
        }
        assert len(problems) == len(impossible)


def test_rows_of_a_table_differ():
    base = presets.paper("market1501")
    for name in SWEEPS:
        configs = [row.overrides(base) for row in SWEEPS[name].rows]
        # The rows of RSA's p hold one more RMGL.
        repeated = name in ("design_choices", "fig7_rsa_parameters")
        assert len(set(configs)) == len(configs) - repeated, name


# Table V


@pytest.mark.parametrize(
    ("row", "granularities", "paths", "abp", "shifting"),
    [
        ("2-stripe", (2,), ("original",), "off", 0.0),
        ("2+3-stripe", (2, 3), ("original",), "off", 0.0),
        ("3-stripe+RP", (3,), ("original", "receptive"), "off", 0.0),
        ("2+3-stripe+RP", (2, 3), ("original", "receptive"), "off", 0.0),
        ("2+3-stripe-only-RP", (2, 3), ("receptive",), "off", 0.0),
        ("2+3-stripe+RSA", (2, 3), ("original",), "off", 1.0),
        ("2+3-stripe+RP+RSA", (2, 3), ("original", "receptive"), "off", 1.0),
        ("2+3-stripe+ABP", (2, 3), ("original",), "always", 0.0),
        ("2-stripe+RP+ABP+RSA", (2,), ("original", "receptive"), "always", 1.0),
        ("RMGL-1+2+3", (1, 2, 3), ("original", "receptive"), "always", 1.0),
        ("RMGL-2+3+4", (2, 3, 4), ("original", "receptive"), "always", 1.0),
    ],
)
def test_components(row, granularities, paths, abp, shifting):
    pool = "max" if abp == "off" else "mean"
    config = config_of("table5_components", row)
    assert config.model.granularities == granularities
    assert config.model.paths == paths
    assert (config.model.original_abp, config.model.original_pool) == (abp, pool)
    assert config.augment.shifting.probability == shifting
    # Nothing else changes.
    differing = changed(config, presets.paper("market1501"))
    assert set(differing) <= {
        "model.granularities",
        "model.paths",
        "model.original_abp",
        "model.original_pool",
        "augment.shifting.probability",
    }


def test_all_components_are_the_default_configuration():
    base = presets.paper("market1501")
    assert config_of("table5_components", "2+3-stripe+RP+ABP+RSA") == base == ExperimentConfig()
    assert presets.rmgl(presets.small("market1501", 24)).model.granularities == (2, 3)


def test_components_keep_the_random_shifting_of_the_preset():
    base = presets.small("synthetic/demo", epochs=24)
    assert base.augment.shifting.probability == 0.5
    assert changed(config_of("table5_components", "2-stripe+RP+ABP+RSA", base), base) == {}
    for row, probability in {
        "2+3-stripe": 0.0,
        "2+3-stripe+RP": 0.0,
        "2+3-stripe+RSA": 0.5,
    }.items():
        config = config_of("table5_components", row, base)
        assert config.augment.shifting.probability == probability
    without = config_of("table5_components", "2-stripe", base)
    assert config_of("table5_components", "2-stripe+RSA", without).augment.shifting.probability == 1


def test_components_have_their_baselines():
    against = {row.name: row.baseline for row in SWEEPS["table5_components"].rows}
    assert against["2+3-stripe"] is None
    assert against["2+3-stripe+RP"] == "2+3-stripe"
    assert against["3-stripe-only-RP"] == "3-stripe"
    assert against["2-stripe+RP+ABP+RSA"] == "2-stripe"
    assert against["RMGL-2+3+4"] == "2+3-stripe+RP+ABP+RSA"


def test_abp_is_also_compared_with_the_mean_of_uniform_stripes():
    base = presets.paper("market1501")
    for stripes in ("2-stripe", "3-stripe", "2+3-stripe"):
        abp, mean = (row_of("table5_components", f"{stripes}{end}") for end in ("+ABP", "-mean"))
        assert (abp.baseline, abp.control, mean.baseline) == (stripes, mean.name, stripes)
        plain = config_of("table5_components", stripes)
        control = mean.overrides(base)
        assert changed(control, plain) == {"model.original_pool": "mean"}
        assert changed(abp.overrides(base), control) == {"model.original_abp": "always"}


# The others


def test_augmentations_change_the_baseline():
    base = presets.paper("market1501")
    two = {"model.granularities": (2,)}
    off = BASELINE | {"augment.shifting.probability": 0.0}
    expected = {
        "2-stripe": two | off,
        "2-stripe+RCJ": two | off | {"augment.jitter.probability": 0.5},
        "2+3-stripe+RC": off | {"augment.crop.probability": 0.5},
        "2+3-stripe+RCRS": off | {"augment.crop_resize_shift.probability": 0.5},
        "2+3-stripe+RE": off | {"augment.erasing.probability": 0.5},
    }
    for row, differing in expected.items():
        assert changed(config_of("table6_augmentation", row), base) == differing
    # RSA with the preset's probability, and with that of its rivals.
    for row, probability in {"2-stripe+RSA": None, "2-stripe+RSA-0.5": 0.5}.items():
        change = {} if probability is None else {"augment.shifting.probability": probability}
        assert changed(config_of("table6_augmentation", row), base) == two | BASELINE | change
    both = config_of("table6_augmentation", "2+3-stripe+RSA+RE")
    assert both.augment.shifting.probability == 1.0
    assert both.augment.erasing == RandomErasingConfig(probability=0.5)
    against = {row.name: row.baseline for row in SWEEPS["table6_augmentation"].rows}
    assert against["2+3-stripe+RE"] == "2+3-stripe"
    assert against["2-stripe+RE"] == "2-stripe"
    assert against["2+3-stripe"] is None


def test_design_choices():
    base = presets.paper("market1501")
    assert {
        row.name: changed(row.overrides(base), base) for row in SWEEPS["design_choices"].rows
    } == {
        "RMGL": {},
        "no-receptive-global": {"model.receptive_global": False},
        "abp-off": {"model.original_abp": "off"},
        "abp-in-testing-only": {"model.original_abp": "test"},
        "original-stripes-max": {"model.original_pool": "max"},
        "abp-off-max": {"model.original_abp": "off", "model.original_pool": "max"},
        "abp-in-testing-only-max": {"model.original_abp": "test", "model.original_pool": "max"},
        "abp-in-testing-only-max-then-mean": {
            "model.original_abp": "test",
            "model.original_pool": "max",
            "model.original_test_pool": "mean",
        },
        "receptive-stripes-mean": {"model.receptive_pool": "mean"},
        "receptive-abp": {"model.receptive_abp": "always"},
        "rsa-p-0.25": {"augment.shifting.probability": 0.25},
        "rsa-p-0.5": {"augment.shifting.probability": 0.5},
        "rsa-p-0.75": {"augment.shifting.probability": 0.75},
        "rsa-p-1": {},
        "reduction-relu": {"model.reduction_relu": True},
        "normalized-triplet": {"loss.triplet_normalized": True},
    }


def test_design_choices_differ_in_one_choice_from_what_they_are_compared_with():
    base = presets.small("synthetic/demo", epochs=24)
    rows = {row.name: row for row in SWEEPS["design_choices"].rows}
    for row in rows.values():
        if row.baseline is not None:
            differing = changed(row.overrides(base), rows[row.baseline].overrides(base))
            # Timing and reduction of the test alone are one choice: nothing changes in training.
            assert len(differing.keys() - {"model.original_test_pool"}) <= 1, row.name


def test_methods_share_a_budget_and_are_reranked():
    base = presets.paper("market1501")
    for name in ("table1_market_duke", "table2_cuhk03", "table3_msmt17"):
        rows = {row.name: changed(row.overrides(base), base) for row in SWEEPS[name].rows}
        for method in ("MGN", "PCB"):
            assert row_of(name, f"{method}-as-published").baseline == method
            assert rows.pop(f"{method}-as-published")["eval.rerank"]
        assert rows == {
            "RMGL": {"eval.rerank": True},
            "MGN": {
                "eval.rerank": True,
                "model.granularities": (1, 2, 3),
                **BASELINE,
                "model.reduction_relu": True,
                "augment.shifting.probability": 0.0,
                "loss.margin": 1.2,
                "loss.triplet_features": "global",
            },
            "PCB": {
                "eval.rerank": True,
                "model.granularities": (6,),
                "model.paths": ("original",),
                "model.original_abp": "off",
                "model.original_global": False,
                "augment.shifting.probability": 0.0,
                "loss.triplet_weight": 0.0,
            },
        }


def test_methods_as_published_have_the_settings_of_their_papers():
    base = presets.paper("market1501")
    own = {"optimizer.warmup_epochs": 0.0, "optimizer.weight_decay": 5e-4, "train.num_ids": 16}
    assert changed(presets.mgn_as_published(base), presets.mgn(base)) == own | {
        "model.branch_after": "res4_1",
        "model.global_stride": 2,
        "model.global_classifier": "pooled",
        "optimizer.decay_epochs": (40, 60),
        "optimizer.head_multiplier": 1.0,
        "train.epochs": 80,
    }
    assert changed(presets.pcb_as_published(base), presets.pcb(base)) == own | {
        "optimizer.decay_epochs": (40,),
    }
    demo = presets.small("synthetic/demo", epochs=24)
    assert presets.mgn_as_published(demo).optimizer.decay_epochs == (16, 24)
    assert presets.pcb_as_published(demo).optimizer.decay_epochs == (16,)


# ResNet-50 without its classifier, and its stages, from torchvision.
RESNET, LAYER2, LAYER3, LAYER4 = 23_508_032, 1_219_584, 7_098_368, 14_964_736
LAYER3_BLOCK1 = 1_512_448
REDUCTION, CLASSIFIER = 2048 * 256 + 2 * 256, 256 * 751 + 751
POOLED_CLASSIFIER = 2048 * 751 + 751


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (presets.mgn, RESNET + 2 * (LAYER2 + LAYER3 + LAYER4) + 8 * (REDUCTION + CLASSIFIER)),
        (
            presets.mgn_as_published,
            RESNET
            + 2 * (LAYER3 - LAYER3_BLOCK1 + LAYER4)
            + 8 * REDUCTION
            + 5 * CLASSIFIER
            + 3 * POOLED_CLASSIFIER,
        ),
        (presets.pcb, RESNET + 6 * (REDUCTION + CLASSIFIER)),
    ],
)
def test_number_of_parameters(method, parameters):
    params = variable_shapes(method(presets.paper("market1501")).model)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_mgn_and_pcb_are_presets():
    for module, base in ((market_rmgl, "paper"), (synthetic_rmgl, "demo")):
        assert module.PRESETS["mgn"] == presets.mgn(module.PRESETS[base])
        assert module.PRESETS["pcb"] == presets.pcb(module.PRESETS[base])
    mgn, pcb = synthetic_rmgl.PRESETS["mgn"], synthetic_rmgl.PRESETS["pcb"]
    # A global feature of each branch and 2 + 3 stripes; six stripes.
    assert len(feature_layout(mgn.model)) == 8
    assert [spec.stripe for spec in feature_layout(pcb.model)] == [1, 2, 3, 4, 5, 6]
    groups = triplet_groups(feature_layout(mgn.model), mgn.loss)
    assert groups == {"global": (0,), "local2/original": (1,), "local3/original": (4,)}
    assert triplet_groups(feature_layout(pcb.model), pcb.loss) == {}


def test_points_of_the_figures():
    base = presets.paper("market1501")
    rsa = {row.name: row for row in SWEEPS["fig7_rsa_parameters"].rows}
    assert rsa["RMGL"].points == {"p_c": 0.5, "r_c": 0.7, "r_w": 0.5}
    assert changed(rsa["RMGL"].overrides(base), base) == {}
    assert changed(rsa["p-0.5"].overrides(base), base) == {"augment.shifting.probability": 0.5}
    assert rsa["p-0.75"].points == {"p": 0.75}
    assert changed(rsa["p_c-1"].overrides(base), base) == {"augment.shifting.crop_probability": 1.0}
    assert changed(rsa["r_c-0.3"].overrides(base), base) == {"augment.shifting.min_crop": 0.3}
    assert changed(rsa["r_w-0.9"].overrides(base), base) == {"augment.shifting.min_width": 0.9}
    assert rsa["r_w-0.9"].points == {"r_w": 0.9}

    margins = {row.name: row.overrides(base) for row in SWEEPS["fig10_triplet_margin"].rows}
    assert changed(margins["margin-soft"], base) == {"loss.margin": None}
    assert changed(margins["margin-0.3"], base) == {"loss.margin": 0.3}
    assert margins["margin-0.6"] == base

    decays = {row.name: row.overrides(base) for row in SWEEPS["fig11_weight_decay"].rows}
    assert [config.optimizer.weight_decay for config in decays.values()] == [2e-4, 5e-4, 1e-3, 2e-3]
    assert decays["1e-3"] == base

    stripes = config_of("fig8_partition_numbers", "s_6")
    assert (stripes.model.granularities, stripes.model.original_abp) == ((6,), "off")
    assert stripes.model.paths == ("original", "receptive")
    assert stripes.augment.shifting.probability == 1.0

    # In front of res3 is after res2, as in RMGL.
    assert config_of("fig9_partition_depth", "2-stripe-res3").model.fold_at == "res2"
    assert config_of("fig9_partition_depth", "2-stripe-res2").model.fold_at == "stem"
    assert config_of("fig9_partition_depth", "3-stripe-output").model.fold_at == "res5"
    config = config_of("fig9_partition_depth", "6-stripe-input")
    assert (config.model.fold_at, config.model.paths) == ("input", ("receptive",))
    assert row_of("fig9_partition_depth", "6-stripe-input").points == {"6 stripes": "input"}
