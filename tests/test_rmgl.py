"""The whole network: golden arrays, the paper's variants, precision, recomputation, devices."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Var
from jax.sharding import PartitionSpec
from safetensors.numpy import save_file

from rmgl_jax.config import ModelConfig
from rmgl_jax.models.pretrained import load_backbone
from rmgl_jax.models.resnet import Stage, Stem
from rmgl_jax.models.rmgl import RMGL, feature_layout
from rmgl_jax.stages import STAGES
from tests.golden import seeded
from tests.tiny_model import TINY, random_images, random_variables, variable_shapes
from tests.trees import assert_trees_close

pytestmark = pytest.mark.network

GOLDEN = np.load(Path(__file__).parent / "golden" / "model_maps.npz")
GOLDEN_CONFIG = ModelConfig(
    num_classes=5,
    image_size=seeded.IMAGE_SIZE,
    granularities=(2, 3, 4),
    depth=seeded.DEPTH,
    width=seeded.WIDTH,
    embed_dim=8,
)
PRECISE = jax.default_matmul_precision("highest")  # float32 on accelerators too


def golden_network(config, folder):
    """Network, variables and images of `tests/golden/make_model_maps.py`."""
    file = folder / "resnet.safetensors"
    save_file(seeded.resnet_arrays(), file)
    variables = load_backbone(file, random_variables(config), config)
    return RMGL(config), variables, jnp.asarray(seeded.images().transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("variant", "stride_in_1x1", "granularities", "branch_after"),
    [("torchvision", False, (2, 3, 4), "res2"), ("msra", True, (3,), "res4_1")],
)
def test_maps_of_both_paths_agree_with_torch(
    variant, stride_in_1x1, granularities, branch_after, tmp_path
):
    config = replace(
        GOLDEN_CONFIG,
        stride_in_1x1=stride_in_1x1,
        granularities=granularities,
        branch_after=branch_after,
    )
    model, variables, images = golden_network(config, tmp_path)
    with PRECISE:
        maps = jax.jit(partial(model.apply, method="feature_maps"))(variables, images)
    expected = {}
    for stripes in granularities:
        expected[f"local{stripes}/original"] = GOLDEN[f"{variant}/original"]
        expected[f"local{stripes}/receptive"] = GOLDEN[f"{variant}/receptive{stripes}"]
    assert list(maps) == list(expected)
    assert_trees_close(maps, expected, atol=1e-4)


def test_running_statistics_are_updated_by_one_path_after_the_other_as_in_torch(tmp_path):
    config = replace(GOLDEN_CONFIG, granularities=(2,))
    model, variables, images = golden_network(config, tmp_path)
    with PRECISE:
        maps, updates = jax.jit(
            partial(model.apply, train=True, method="feature_maps", mutable=["batch_stats"])
        )(variables, images)
    np.testing.assert_allclose(maps["local2/original"], GOLDEN["train/original"], atol=1e-4)
    np.testing.assert_allclose(maps["local2/receptive"], GOLDEN["train/receptive2"], atol=1e-4)

    # Torch's running variances average the unbiased variance of a batch of n, n / (n - 1) of ours.
    before = seeded.resnet_arrays()
    updated = updates["batch_stats"]["backbone"]
    checked = 0
    for key in GOLDEN:
        if not key.startswith("train/") or not key.endswith(".count"):
            continue
        name, count = key.removeprefix("train/").removesuffix(".count"), GOLDEN[key]
        stage, module = flax_name(name)
        calls = 1 if stage in ("stem", "res2") else 2
        ours = (
            updated[stage][module[0]] if len(module) == 1 else updated[stage][module[0]][module[1]]
        )
        kept = 0.9**calls * before[f"{name}.running_var"]
        biased = kept + (GOLDEN[f"train/{name}.running_var"] - kept) * (count - 1) / count
        np.testing.assert_allclose(ours["var"], biased, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(
            ours["mean"], GOLDEN[f"train/{name}.running_mean"], rtol=1e-5, atol=1e-5, err_msg=name
        )
        checked += 1
    assert checked == len(jax.tree.leaves(updated)) // 2


def flax_name(torch_name: str) -> tuple[str, tuple[str, ...]]:
    """Stage and modules of a batch norm of torchvision's ResNet, in the branch of two stripes."""
    if torch_name == "bn1":
        return "stem", ("bn",)
    layer, block, norm = re.fullmatch(r"layer(\d)\.(\d)\.(.*)", torch_name).groups()
    stage = "res2" if layer == "1" else f"local2_res{int(layer) + 1}"
    return stage, (f"block{int(block) + 1}", "bn_shortcut" if norm == "downsample.1" else norm)


# The models of Table V and of Figs. 8 and 9, with a tiny backbone. Random shifting is not part of
# the network.
BASELINE = {"paths": ("original",), "original_abp": "off", "original_pool": "max"}
RP_PATHS = ("original", "receptive")
RP = {"original_abp": "off", "original_pool": "max"}
ONLY_RP = {"paths": ("receptive",)}
ABP = {"paths": ("original",)}
TABLE_5 = {
    f"{'+'.join(map(str, granularities))} {name}": {"granularities": granularities, **options}
    for granularities, variants in {
        (2,): {"baseline": BASELINE, "RP": RP, "only RP": ONLY_RP, "ABP": ABP, "RMGL": {}},
        (3,): {"baseline": BASELINE, "RP": RP, "only RP": ONLY_RP, "ABP": ABP},
        (2, 3): {"baseline": BASELINE, "RP": RP, "only RP": ONLY_RP, "ABP": ABP, "RMGL": {}},
        (1, 2, 3): {"RMGL": {}},
        (2, 3, 4): {"RMGL": {}},
    }.items()
    for name, options in variants.items()
}
FIGURE_8 = {f"{s} stripes": {"granularities": (s,), **RP} for s in (4, 5, 6)}  # 2, 3: Table V
FIGURE_9 = {
    f"{s} stripes from {fold_at}": {"granularities": (s,), "fold_at": fold_at, **ONLY_RP}
    for s in (2, 3, 6)
    for fold_at in STAGES
}
MGN = {
    "granularities": (1, 2, 3),
    "depth": (1, 1, 2, 1),
    "branch_after": "res4_1",
    "global_stride": 2,
    "global_classifier": "pooled",
    **BASELINE,
}
VARIANTS = TABLE_5 | FIGURE_8 | FIGURE_9 | {"MGN": MGN, "MGN with RP": MGN | {"paths": RP_PATHS}}


def stand_in(next_function, args, kwargs, context):
    """Replaces every stage by a cheap function of its input and parameters.

    The variants differ in the order of stages, folds and heads only; the stages have other tests.
    """
    module = context.module
    if not isinstance(module, Stem | Stage) or context.method_name != "__call__":
        return next_function(*args, **kwargs)
    stride, channels = (4, 1) if isinstance(module, Stem) else (module.stride, 4)
    channels *= module.features
    weight = sum(leaf.mean() for leaf in jax.tree.leaves(module.variables["params"]))
    x = args[0][:, ::stride, ::stride].mean(-1, keepdims=True)
    return jnp.tanh((1 + weight) * x + jnp.linspace(-1, 1, channels)[None, None, None])


def variant(name):
    """Configuration, parameters and loss of a variant, with stand-ins for its stages."""
    # Divided by 16 times each number of stripes: the variants' maps have the same heights.
    config = replace(TINY, image_size=(960, 16), **VARIANTS[name])
    variables, images = random_variables(config), random_images(2, config)

    def loss(params):
        with nn.intercept_methods(stand_in):
            output, _ = RMGL(config).apply(
                {**variables, "params": params}, images, train=True, mutable="batch_stats"
            )
        return jnp.mean((output.logits - 0.3) ** 2), output

    return config, variables["params"], loss


@pytest.mark.parametrize("name", VARIANTS)
def test_published_variants_use_every_parameter(name):
    config, params, loss = variant(name)
    program, (_, output) = jax.make_jaxpr(loss, return_shape=True)(params)
    count = len(feature_layout(config))
    assert output.features.shape == (2, count, 8)
    assert output.logits.shape == (2, count, 5)
    assert output.embedding.shape == (2, count * 8)

    used = {program.jaxpr.outvars[0]}
    for equation in reversed(program.jaxpr.eqns):
        if used & set(equation.outvars):
            used |= {variable for variable in equation.invars if isinstance(variable, Var)}
    inputs = zip(jax.tree.leaves_with_path(params), program.jaxpr.invars, strict=True)
    assert not [
        jax.tree_util.keystr(path) for (path, _), variable in inputs if variable not in used
    ]


@pytest.mark.parametrize(
    "name",
    ["2 baseline", "2+3 only RP", "1+2+3 RMGL", "6 stripes from input", "MGN with RP"],
)
def test_published_variants_are_finite_and_every_parameter_learns(name):
    _, params, loss = variant(name)
    gradients, output = jax.jit(jax.grad(loss, has_aux=True))(params)
    for value in jax.tree.leaves((output, gradients)):
        assert np.isfinite(value).all()
    for path, value in jax.tree.leaves_with_path(gradients):
        assert np.any(value), jax.tree_util.keystr(path)


def parameters_by_arithmetic(granularities: tuple[int, ...], features: int) -> int:
    """Parameters of a published ResNet-50 model with so many features and 751 identities."""

    def stage(inputs, inner, blocks):
        outer = 4 * inner
        first = inputs * inner + 9 * inner**2 + inner * outer + inputs * outer + 2 * outer
        other = outer * inner + 9 * inner**2 + inner * outer
        norms = 2 * (2 * inner + outer)
        return first + norms + (blocks - 1) * (other + norms)

    shared = 7 * 7 * 3 * 64 + 2 * 64 + stage(64, 64, 3)
    branch = stage(256, 128, 4) + stage(512, 256, 6) + stage(1024, 512, 3)
    head = 2048 * 256 + 2 * 256 + 256 * 751 + 751
    return shared + len(granularities) * branch + features * head


@pytest.mark.parametrize(
    ("granularities", "features", "total"),
    [
        ((2,), 2 * (1 + 2), 27_814_874),
        ((2, 3), 2 * (1 + 2) + 2 * (1 + 3), 56_840_018),
        ((1, 2, 3), 1 + 2 * (1 + 2) + 2 * (1 + 3), 80_840_513),
        ((2, 3, 4), 2 * (1 + 2) + 2 * (1 + 3) + 2 * (1 + 4), 87_300_776),
    ],
)
def test_number_of_parameters_of_the_published_models(granularities, features, total):
    assert parameters_by_arithmetic(granularities, features) == total
    params = variable_shapes(ModelConfig(granularities=granularities))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == total
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"float32"}


def test_shared_weights_change_with_the_position_where_branches_separate():
    def modules(branch_after):
        config = replace(TINY, granularities=(1, 2), depth=(1, 1, 2, 1), branch_after=branch_after)
        shapes = variable_shapes(config)
        blocks = {name: sorted(stage) for name, stage in shapes["params"]["backbone"].items()}
        return blocks, shapes["params"]

    blocks, params = modules("res4_1")
    assert blocks.keys() == {
        *("stem", "res2", "res3", "res4"),
        *("local1_res4", "local1_res5", "local2_res4", "local2_res5"),
    }
    assert blocks["res4"] == ["block1"]
    assert blocks["local1_res4"] == blocks["local2_res4"] == ["block2"]
    # The first block has the projection.
    assert "conv_shortcut" in params["backbone"]["res4"]["block1"]
    assert "conv_shortcut" not in params["backbone"]["local2_res4"]["block2"]
    assert {"local1_res2", "local2_res2"} <= modules("stem")[0].keys()
    assert modules("res4")[0]["res4"] == ["block1", "block2"]


def test_global_branch_of_stride_2_halves_its_map():
    config = replace(TINY, granularities=(1, 2), paths=("original",), global_stride=2)
    maps = jax.eval_shape(
        partial(RMGL(config).apply, method="feature_maps"),
        variable_shapes(config),
        random_images(1, config),
    )
    assert {name: x.shape[1:3] for name, x in maps.items()} == {
        "global": (3, 1),
        "local2/original": (6, 2),
    }


def test_classifiers_of_whole_maps_can_take_the_pooled_vectors():
    config = replace(TINY, granularities=(2,), global_classifier="pooled")
    params = random_variables(config)["params"]
    random = np.random.default_rng(0)
    pooled, features = (random.normal(size=(2, 6, width)).astype(np.float32) for width in (128, 8))
    found = RMGL(config).apply({"params": params}, pooled, features, method="classify")
    expected = [
        vector @ head["kernel"][index] + head["bias"][index][None]
        for vector, head, index in (
            (pooled[:, 0], params["global_classifier"], 0),
            (features[:, 1], params["classifier"], 0),
            (features[:, 2], params["classifier"], 1),
            (pooled[:, 3], params["global_classifier"], 1),
            (features[:, 4], params["classifier"], 2),
            (features[:, 5], params["classifier"], 3),
        )
    ]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-4, atol=1e-4)


def test_layout_names_every_feature_in_order():
    names = [spec.name for spec in feature_layout(ModelConfig(granularities=(1, 2)))]
    assert names == [
        "global",
        "local2/original/global",
        "local2/original/1",
        "local2/original/2",
        "local2/receptive/global",
        "local2/receptive/1",
        "local2/receptive/2",
    ]
    assert len(feature_layout(ModelConfig())) == 14
    assert [spec.branch for spec in feature_layout(ModelConfig())] == [0] * 6 + [1] * 8


def test_global_branch_names_its_map_and_stages():
    config = replace(TINY, granularities=(1, 2), last_stage="res4")
    (spec, *others) = feature_layout(config)
    assert (spec.branch_name, spec.map_name, spec.name) == ("global", "global", "global")
    assert (others[0].branch_name, others[0].map_name) == ("local2", "local2/original")
    variables = variable_shapes(config)
    # Checkpoints keep the names of the parameters.
    assert {"stem", "res2", "local1_res3", "local1_res4", "local2_res3", "local2_res4"} == set(
        variables["params"]["backbone"]
    )
    maps = jax.eval_shape(
        partial(RMGL(config).apply, method="feature_maps"), variables, random_images(1, config)
    )
    assert sorted(maps) == ["global", "local2/original", "local2/receptive"]


def test_layout_follows_the_configuration():
    def names(**options):
        return [spec.name for spec in feature_layout(replace(TINY, granularities=(2,), **options))]

    assert names(receptive_global=False)[3:] == ["local2/receptive/1", "local2/receptive/2"]
    assert names(original_global=False)[0] == "local2/original/1"
    assert names(paths=("original",))[-1] == "local2/original/2"
    assert names(receptive_stripes=(3,))[-1] == "local2/receptive/3"
    # The order of the configured paths is not that of the features.
    assert names(paths=("receptive", "original")) == names()


def test_a_feature_is_its_pooled_vector_by_its_own_head():
    config = replace(
        TINY,
        original_abp="off",
        original_pool="max",
        receptive_stripes=(2, 3),
        reduction_relu=True,
        last_stage="res4",
    )
    model, variables, images = RMGL(config), random_variables(config), random_images(2, config)

    @jax.jit
    def maps_and_output(variables, images):
        maps = {}

        def record(next_function, args, kwargs, context):
            out = next_function(*args, **kwargs)
            if context.method_name == "feature_maps":
                maps.update(out)
            return out

        with nn.intercept_methods(record):
            output = model.apply(variables, images)
        return maps, output

    maps, output = maps_and_output(variables, images)
    reduction, classifier = (variables["params"][name] for name in ("reduction", "classifier"))
    running = variables["batch_stats"]["reduction"]["bn"]
    for index, spec in enumerate(feature_layout(config)):
        rows = np.asarray(maps[spec.map_name])
        if spec.stripe:
            size = rows.shape[1] // spec.granularity
            rows = rows[:, size * (spec.stripe - 1) : size * spec.stripe]
        vector = rows.max((1, 2)) @ reduction["kernel"][index]
        scaled = (vector - running["mean"][index][None]) / np.sqrt(running["var"][index] + 1e-5)[
            None
        ]
        feature = jax.nn.relu(
            scaled * reduction["bn"]["scale"][index][None] + reduction["bn"]["bias"][index][None]
        )
        logits = feature @ classifier["kernel"][index] + classifier["bias"][index][None]
        np.testing.assert_allclose(output.features[:, index], feature, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(output.logits[:, index], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(output.embedding, output.features.reshape(2, -1))


def test_timing_and_reduction_of_stripes_are_independent_on_each_path():
    config = replace(TINY, granularities=(2,), last_stage="res4")

    def pooled(train, **options):
        model = RMGL(replace(config, **options))
        maps = {
            "local2/original": random_images(2, config)[:, :, :2],
            "local2/receptive": random_images(2, config, seed=2)[:, :, :2],
        }
        return jax.jit(partial(model.apply, train=train, method="pool"))({}, maps)

    def same(a, b):
        """Which of the six features are alike."""
        return np.isclose(a, b).all((0, 2)).tolist()

    def stripes(a, b, path):
        """True if the two stripes of `path` are alike, where the other features must be."""
        first = 1 if path == "original" else 4
        found = same(a, b)
        assert found[:first] + found[first + 2 :] == [True] * 4
        assert found[first] == found[first + 1]
        return found[first]

    for path in ("original", "receptive"):

        def of(train, abp, pool, test_pool=None, path=path):
            names = {"abp": abp, "pool": pool, "test_pool": test_pool}
            return pooled(train, **{f"{path}_{name}": value for name, value in names.items()})

        found = {}
        for pool in ("max", "mean"):
            off, always = of(False, "off", pool), of(False, "always", pool)
            found |= {(False, pool): off, (True, pool): always}
            for timing, train, expected in (
                ("off", True, off),
                ("test", True, off),
                ("test", False, always),
                ("always", True, always),
            ):
                assert stripes(of(train, timing, pool), expected, path)
        # Balanced or not, and either reduction: four different results.
        for a, b in combinations(found.values(), 2):
            assert not stripes(a, b, path)
        # What the paper prints: maximum of uniform stripes, in testing the mean of balanced ones.
        assert stripes(of(True, "test", "max", "mean"), found[False, "max"], path)
        assert stripes(of(False, "test", "max", "mean"), found[True, "mean"], path)

    default = pooled(False)
    global_mean = pooled(False, global_pool="mean")
    assert same(global_mean, default) == [False, True, True, False, True, True]


def test_bfloat16_is_the_arithmetic_of_the_backbone_only():
    plain = replace(TINY, granularities=(2,), paths=("original",), last_stage="res4")
    config = replace(plain, dtype="bfloat16")
    variables, images = random_variables(plain), random_images(4, plain)
    assert variable_shapes(config) == variable_shapes(plain)  # float32 parameters and statistics

    train = partial(RMGL(config).apply, train=True, mutable=["batch_stats"])
    results = jax.eval_shape(train, variables, images)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(results)} == {"float32"}
    output, expected = (jax.jit(RMGL(c).apply)(variables, images) for c in (config, plain))
    error = jnp.abs(output.features - expected.features).mean()
    assert 1e-4 < error < 0.1  # rounded to 8 bits somewhere, and not worse

    program = jax.jit(partial(RMGL(config).apply, train=False)).lower(variables, images).as_text()
    operations = re.findall(r"stablehlo\.(convolution|dot_general).*-> tensor<(.*)>", program)
    types = {(kind, shape.rsplit("x", 1)[1]) for kind, shape in operations}
    assert ("convolution", "bf16") in types
    assert ("convolution", "f32") not in types
    in_float32 = [shape for _, shape in operations if shape.endswith("f32")]
    assert len(in_float32) == 3  # balanced pooling, reductions, classifiers


def test_heads_are_one_batched_product_each():
    model, variables = RMGL(TINY), random_variables(TINY)
    heads = jax.jit(
        lambda variables, pooled: model.apply(
            variables, pooled, method=lambda m, x: m.classifier(m.reduction(x, False))
        )
    ).lower(variables, jnp.ones((4, 14, 128)))
    assert heads.as_text().count("stablehlo.dot_general") == 2
    compiled = heads.compile().as_text()
    assert len(re.findall(r" dot\(| custom-call\(", compiled)) == 2


def test_recomputation_is_of_every_block_and_changes_no_name():
    config = replace(TINY, granularities=(2,), depth=(1, 2, 1, 1), last_stage="res4", remat=True)
    variables = variable_shapes(config)
    assert variable_shapes(replace(config, remat=False)) == variables
    run = partial(RMGL(config).apply, train=True, mutable=["batch_stats"])
    program = str(jax.make_jaxpr(run)(variables, random_images(1, config)))
    assert len(re.findall(r"\b(?:remat2|checkpoint)\[", program)) == 1 + 2 * (2 + 1)


def test_batch_statistics_are_those_of_all_devices_with_an_axis_name():
    config = replace(TINY, granularities=(2,), paths=("original",), last_stage="res4")
    variables, images = random_variables(config), random_images(8, config)
    train = {"train": True, "mutable": ["batch_stats"]}
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    data, same = PartitionSpec("data"), PartitionSpec()

    def run(axis_name):
        model = RMGL(config, axis_name=axis_name)
        return partial(model.apply, **train)

    expected, expected_updates = jax.jit(run(None))(variables, images)
    output, updates = jax.jit(
        jax.shard_map(run("data"), mesh=mesh, in_specs=(same, data), out_specs=(data, same))
    )(variables, images)
    np.testing.assert_allclose(output.features, expected.features, rtol=1e-3, atol=1e-3)
    assert_trees_close(updates, expected_updates, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fold_at", ["input", "res3", "res5"])
def test_nothing_is_computed_twice(fold_at):
    """A stage runs once for every one of its maps that differs from the others."""
    config = replace(TINY, fold_at=fold_at, receptive_stripes=(2, 2))
    calls = []

    def record(next_function, args, kwargs, context):
        if isinstance(context.module, Stem | Stage) and context.method_name == "__call__":
            calls.append(context.module.name)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(record):
        variable_shapes(config)
    folded = STAGES[STAGES.index(fold_at) + 1 :]
    expected = {stage: 1 + (stage in folded) for stage in ("stem", "res2")}
    for stage in ("res3", "res4", "res5"):
        expected |= {f"local{branch}_{stage}": 1 + (stage in folded) for branch in (2, 3)}
    assert Counter(calls) == expected


def test_frozen_stages_are_constant():
    """With all stages frozen, the maps in training are those of evaluation, without gradient."""
    config = replace(TINY, granularities=(2,), paths=("original",), last_stage="res4")
    model = RMGL(config, frozen_until="res4")
    images = random_images(2, config)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    apply = partial(model.apply, method="feature_maps", mutable=["batch_stats"])
    trained, statistics = jax.jit(partial(apply, train=True))(variables, images)
    expected, _ = jax.jit(partial(apply, train=False))(variables, images)
    np.testing.assert_allclose(trained["local2/original"], expected["local2/original"], rtol=1e-5)
    assert_trees_close(statistics["batch_stats"], variables["batch_stats"])

    def total(params):
        maps, _ = apply(variables | {"params": params}, images, train=True)
        return jnp.sum(maps["local2/original"])

    assert not any(map(np.any, jax.tree.leaves(jax.jit(jax.grad(total))(variables["params"]))))


@pytest.mark.parametrize("path", ["original", "receptive"])
def test_feature_maps_are_those_of_the_configured_path(path):
    config = replace(TINY, granularities=(2,), paths=(path,))
    maps = jax.eval_shape(
        partial(RMGL(config).apply, method="feature_maps"),
        variable_shapes(config),
        random_images(1, config),
    )
    assert {name: value.shape for name, value in maps.items()} == {f"local2/{path}": (1, 6, 2, 128)}


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((96, 32, 3), np.float32), ValueError, r"\[B, H, W, 3\], got shape \(96, 32, 3\)"),
        (np.zeros((1, 96, 32, 1), np.float32), ValueError, r"got shape \(1, 96, 32, 1\)"),
        (np.zeros((1, 3, 96, 32), np.float32), ValueError, r"got shape \(1, 3, 96, 32\)"),
        (np.zeros((1, 96, 32, 3), np.uint8), TypeError, "normalized floats, got uint8"),
        (np.zeros((1, 100, 32, 3), np.float32), ValueError, r"multiples of 16 .* got \(100, 32\)"),
        (np.zeros((1, 64, 32, 3), np.float32), ValueError, "3 stripes, which do not divide"),
    ],
)
def test_unsuitable_images_raise_errors(images, error, message):
    model = RMGL(TINY)
    with pytest.raises(error, match=message):
        jax.eval_shape(model.apply, variable_shapes(TINY), images)


def test_images_of_other_sizes_that_the_stripes_divide_are_accepted():
    images = np.zeros((2, 192, 64, 3), np.float32)
    output = jax.eval_shape(RMGL(TINY).apply, variable_shapes(TINY), images)
    assert output.embedding.shape == (2, 14 * 8)
