"""Contradictory configurations are refused with a sentence that names the field."""

from dataclasses import FrozenInstanceError, replace

import pytest

from rmgl_jax.config import STAGES, ModelConfig


def test_the_default_is_the_paper_s_network():
    config = ModelConfig()
    assert config.num_classes == 751
    assert config.image_size == (384, 128)
    assert config.granularities == (2, 3)
    assert config.paths == ("original", "receptive")
    assert config.fold_at == "res2"
    assert config.embed_dim == 256
    assert config.depth == (3, 4, 6, 3)
    assert config.abp == "always"
    with pytest.raises(FrozenInstanceError):
        config.num_classes = 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be positive, got 0"),
        ({"embed_dim": 0}, "embed_dim must be positive, got 0"),
        ({"width": -1}, "width must be positive, got -1"),
        ({"depth": (1, 1, 1)}, r"depth must be four positive block counts, got \(1, 1, 1\)"),
        ({"depth": (1, 0, 1, 1)}, "depth must be four positive block counts"),
        ({"granularities": ()}, "granularities must be one or more positive"),
        ({"granularities": (2, 0)}, "granularities must be one or more positive"),
        ({"granularities": (2, 2)}, "granularities must differ"),
        ({"granularities": (5,)}, "granularities asks for 5 stripes, which do not divide .* 24"),
        ({"paths": ()}, "paths is empty"),
        ({"paths": ("original", "middle")}, "paths may hold 'original' and 'receptive'"),
        ({"paths": ("original", "original")}, "paths must not repeat a path"),
        ({"abp_paths": ("both",)}, "abp_paths may hold"),
        ({"fold_at": "res6"}, "fold_at is 'res6', but the network has the maps"),
        ({"fold_at": "res5", "last_stage": "res4"}, "fold_at is 'res5', but the network"),
        ({"receptive_stripes": (2,)}, "receptive_stripes must give one positive stripe count per"),
        ({"receptive_stripes": (2, 0)}, "receptive_stripes must give one positive"),
        (
            {"receptive_stripes": (2, 5)},
            "receptive_stripes: 5 stripes of the map at fold_at='res2'",
        ),
        (
            {"image_size": (380, 128)},
            r"image_size must be positive multiples of 16 .* \(380, 128\)",
        ),
        ({"image_size": (0, 128)}, "image_size must be positive"),
        # 24 rows at res2 make 4 stripes of 6, but the 6 of the last map do not.
        ({"image_size": (96, 32), "granularities": (4,)}, "granularities asks for 4 stripes"),
        (
            {"image_size": (96, 32), "granularities": (4,), "paths": ("receptive",)},
            "4 stripes of the map at fold_at='res2' .height 24. must have heights divisible",
        ),
        ({"abp": "maybe"}, r"abp must be one of \('off', 'test', 'always'\), got 'maybe'"),
        ({"uniform_pool": "sum"}, "uniform_pool must be one of .* got 'sum'"),
        ({"last_stage": "res3"}, "last_stage must be one of .* got 'res3'"),
        ({"dtype": "float16"}, "dtype must be one of .* got 'float16'"),
        ({"batch_norm_momentum": 1.0}, r"batch_norm_momentum must be in \[0, 1\), got 1.0"),
        ({"paths": ("original",), "receptive_stripes": (2, 3)}, "paths has no receptive path"),
        ({"granularities": (1, 2), "receptive_stripes": (3, 2)}, "must be 1 for a global branch"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**options)


@pytest.mark.parametrize("fold_at", STAGES)
@pytest.mark.parametrize("stripes", [2, 3, 4, 6])
def test_every_fold_of_the_paper_fits_its_images(fold_at, stripes):
    config = ModelConfig(granularities=(stripes,), fold_at=fold_at)
    assert config.map_height(fold_at) % stripes == 0
    assert config.fold_stripes(0) == stripes


def test_map_heights_follow_the_strides():
    config = ModelConfig()
    assert [config.map_height(stage) for stage in STAGES] == [384, 96, 96, 48, 24, 24]
    assert replace(config, receptive_stripes=(4, 6)).fold_stripes(1) == 6


def test_stripes_that_no_path_makes_need_not_fit():
    # Without an original path the stripes are those of the receptive path alone.
    config = ModelConfig(granularities=(5,), paths=("receptive",), receptive_stripes=(2,))
    assert config.fold_stripes(0) == 2
