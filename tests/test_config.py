"""Configurations refuse wrong values and contradictions, naming the field and the value."""

import dataclasses
from dataclasses import FrozenInstanceError, replace
from typing import Annotated, Literal

import pytest

from rmgl_jax import config as configs
from rmgl_jax.config import STAGES, ExperimentConfig, LossConfig, ModelConfig, TrainConfig
from rmgl_jax.field_checks import Range, check_fields
from rmgl_jax.models.rmgl import feature_layout

CONFIGS = [
    kind
    for kind in vars(configs).values()
    if dataclasses.is_dataclass(kind) and kind.__module__ == configs.__name__
]


def test_model_config_default_is_the_published_network():
    config = ModelConfig()
    assert config.num_classes == 751
    assert config.image_size == (384, 128)
    assert config.granularities == (2, 3)
    assert config.paths == ("original", "receptive")
    assert config.fold_at == "res2"
    assert config.embed_dim == 256
    assert config.depth == (3, 4, 6, 3)
    assert config.original_abp == "always"
    with pytest.raises(FrozenInstanceError):
        config.num_classes = 5


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, field.name) for kind in CONFIGS for field in dataclasses.fields(kind)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_field_of_every_config_is_checked(kind, name):
    with pytest.raises(ValueError, match=rf"{kind.__name__}.{name} .*<object object"):
        kind(**{name: object()})


@dataclasses.dataclass(frozen=True)
class Example:
    literal: Literal["a", "b"] = "a"
    flag: bool = False
    text: str = ""
    count: Annotated[int, Range(1)] = 1
    share: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    decay: Annotated[float, Range(0, 1, open_high=True)] = 0.5
    rate: Annotated[float, Range(0, open_low=True)] = 1.0
    optional: Annotated[float, Range(0)] | None = None
    pair: tuple[int, float] = (1, 1.0)
    names: tuple[Literal["a", "b"], ...] = ()

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"literal": "c"}, "'a', 'b'"),
        ({"flag": 1}, "bool"),
        ({"text": b"x"}, "str"),
        ({"count": 0}, "at least 1"),
        ({"count": 1.0}, "integer"),
        ({"count": True}, "integer"),
        ({"share": 0.0}, r"\(0, 1\]"),
        ({"share": 1.1}, r"\(0, 1\]"),
        ({"decay": 1.0}, r"\[0, 1\)"),
        ({"decay": -0.1}, r"\[0, 1\)"),
        ({"rate": 0.0}, "greater than 0"),
        ({"rate": float("nan")}, "finite"),
        ({"rate": float("inf")}, "finite"),
        ({"optional": -1.0}, "at least 0 or None"),
        ({"pair": (1, 2, 3)}, "tuple of 2"),
        ({"pair": [1, 2]}, "tuple"),
        ({"pair": (1.5, 2)}, "integer"),
        ({"names": ("a", "c")}, "'a', 'b'"),
    ],
)
def test_check_fields_names_field_expectation_and_value(options, expected):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"Example.{name} .*{expected}") as caught:
        Example(**options)
    assert repr(value) in str(caught.value)


def test_check_fields_accepts_what_the_annotations_allow():
    Example("b", True, "x", 1, 1.0, 0.0, 1e-9, 0, (1, 2), ("a", "b", "a"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TrainConfig, {"batch_norm": "synchronised"}),
        (TrainConfig, {"mining": "batch"}),
        (TrainConfig, {"parallel": "shard_map"}),
        (TrainConfig, {"num_ids": 12, "accumulate": 5}),
        (LossConfig, {"triplet_features": "brnch"}),
        (configs.OptimizerConfig, {"decay_epochs": (50.0, 30.0)}),
        (configs.OptimizerConfig, {"decay_epochs": (-5.0, 30.0)}),
        (configs.RandomErasingConfig, {"min_area": 0.5, "max_area": 0.4}),
        (ExperimentConfig, {"model": LossConfig()}),
    ],
)
def test_other_configs_refuse_wrong_values(kind, options):
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=name) as caught:
        kind(**options)
    assert str(value)[:20] in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularities": ()}, r"granularities .*\(\)"),
        ({"granularities": (2, 0)}, r"granularities .*\(2, 0\)"),
        ({"granularities": (2, 2)}, r"granularities .*\(2, 2\)"),
        ({"granularities": (5,)}, "granularities .*5 stripes.* 24"),
        ({"paths": ()}, "paths"),
        ({"paths": ("original", "middle")}, "paths .*'middle'"),
        ({"paths": ("original", "original")}, "paths .*repeat"),
        ({"original_abp": "train"}, "original_abp .*'train'"),
        ({"receptive_test_pool": "sum"}, "receptive_test_pool .*'sum'"),
        ({"depth": (1, 1, 1)}, r"depth .*\(1, 1, 1\)"),
        ({"branch_after": "res5"}, "branch_after .*'res5'"),
        ({"global_stride": 2, "last_stage": "res4"}, "global_stride .*2.*'res4'"),
        ({"fold_at": "res6"}, "fold_at .*'res6'"),
        ({"fold_at": "res5", "last_stage": "res4"}, "fold_at .*'res5'"),
        ({"receptive_stripes": (2,)}, r"receptive_stripes .*\(2, 3\).*\(2,\)"),
        ({"receptive_stripes": (2, 0)}, r"receptive_stripes .*\(2, 0\)"),
        ({"receptive_stripes": (2, 5)}, "receptive_stripes: 5 stripes .*'res2'"),
        ({"paths": ("original",), "receptive_stripes": (2, 3)}, "receptive_stripes"),
        ({"granularities": (1, 2), "receptive_stripes": (3, 2)}, r"receptive_stripes .*\(3, 2\)"),
        ({"image_size": (380, 128)}, r"image_size .*16.*\(380, 128\)"),
        ({"image_size": (0, 128)}, r"image_size .*\(0, 128\)"),
        ({"global_classifier": "pooled", "granularities": (1,)}, "global_classifier .*only whole"),
        (
            {"global_classifier": "pooled", "original_global": False, "receptive_global": False},
            "global_classifier .*only stripes",
        ),
        # 24 rows at res2 make 4 stripes of 6, but the 6 of the last map do not.
        ({"image_size": (96, 32), "granularities": (4,)}, "granularities .*4 stripes"),
        (
            {"image_size": (96, 32), "granularities": (4,), "paths": ("receptive",)},
            "receptive_stripes: 4 stripes .*'res2' .height 24",
        ),
    ],
)
def test_model_config_refuses_contradictions(options, message):
    with pytest.raises(ValueError, match=f"ModelConfig.{message}"):
        ModelConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"granularities": (1, 2), "original_global": False, "receptive_global": False},
        {"granularities": (2,), "paths": ("receptive",), "original_global": False},
    ],
)
def test_separate_classifiers_of_whole_maps_and_stripes_have_features(options):
    layout = feature_layout(ModelConfig(global_classifier="pooled", **options))
    assert {spec.stripe == 0 for spec in layout} == {True, False}


@pytest.mark.parametrize("fold_at", STAGES)
@pytest.mark.parametrize("stripes", [2, 3, 4, 6])
def test_model_config_accepts_every_fold_of_the_paper(fold_at, stripes):
    config = ModelConfig(granularities=(stripes,), fold_at=fold_at)
    assert config.map_height(fold_at) % stripes == 0
    assert config.fold_stripes(0) == stripes


def test_map_heights_follow_the_strides():
    config = ModelConfig()
    assert [config.map_height(stage) for stage in STAGES] == [384, 96, 96, 48, 24, 24]
    assert replace(config, receptive_stripes=(4, 6)).fold_stripes(1) == 6


def test_stripes_that_no_path_pools_need_not_fit():
    # Without an original path the stripes are those of the receptive path alone.
    config = ModelConfig(granularities=(5,), paths=("receptive",), receptive_stripes=(2,))
    assert config.fold_stripes(0) == 2
