"""Parts of the embedding, and retrieval with each of them alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmgl_jax.config import EvalConfig, ExperimentConfig, ModelConfig
from rmgl_jax.evaluation.embedding import embed, embedding_width
from rmgl_jax.evaluation.parts import score_parts
from rmgl_jax.evaluation.protocol import evaluate_splits
from rmgl_jax.evaluation.ranking import rank_features
from rmgl_jax.experiment import presets
from rmgl_jax.models.parts import embedding_parts
from rmgl_jax.models.rmgl import RMGL
from tests.test_protocol import CONFIG, GALLERY, LABELS, QUERY
from tests.tiny_model import random_variables

BASE = ExperimentConfig()
MODELS = [
    ModelConfig(),
    ModelConfig(granularities=(1,)),
    ModelConfig(granularities=(1, 2, 3), receptive_global=False),
    ModelConfig(paths=("receptive",), embed_dim=3),
    presets.mgn(BASE).model,
    presets.pcb(BASE).model,
    presets.small("market1501", 3).model,
]
# One branch of one path and one feature.
SINGLE = replace(CONFIG, granularities=(1,))


def by_kind(config):
    found = {}
    for part in embedding_parts(config):
        found.setdefault(part.kind, []).append(part)
    return found


@pytest.mark.parametrize("config", MODELS)
def test_parts_of_a_kind_are_the_embedding(config):
    kinds = by_kind(config)
    assert list(kinds) == ["all", "branch", "path", "region", "feature"]
    width = embedding_width(config)
    for parts in kinds.values():
        columns = np.concatenate([part.columns(config) for part in parts])
        np.testing.assert_array_equal(np.sort(columns), np.arange(width))
        assert len({part.name for part in parts}) == len(parts)
    for kind in ("all", "feature"):
        columns = np.concatenate([part.columns(config) for part in kinds[kind]])
        np.testing.assert_array_equal(columns, np.arange(width))


def test_parts_of_published_rmgl():
    kinds = {
        kind: {part.name: part.features for part in parts}
        for kind, parts in by_kind(ModelConfig()).items()
    }
    assert kinds["branch"] == {"local2": tuple(range(6)), "local3": tuple(range(6, 14))}
    assert kinds["path"] == {
        "original": (0, 1, 2, 6, 7, 8, 9),
        "receptive": (3, 4, 5, 10, 11, 12, 13),
    }
    assert kinds["region"]["whole map"] == (0, 3, 6, 10)
    assert kinds["feature"]["local3/receptive/2"] == (12,)


@pytest.mark.network
def test_columns_are_the_features_of_the_network():
    variables = random_variables(CONFIG)
    images = jnp.asarray(QUERY.images, jnp.float32) / 255
    output = jax.jit(RMGL(CONFIG).apply)(variables, images)
    for part in embedding_parts(CONFIG):
        expected = output.features[:, np.array(part.features)].reshape(len(images), -1)
        # The compiler may compute both outputs on their own, rounded differently.
        found = output.embedding[:, part.columns(CONFIG)]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.network
def test_parts_are_ranked_alone():
    variables = random_variables(CONFIG)
    settings = EvalConfig(batch_size=8)
    result = evaluate_splits(CONFIG, variables, QUERY, GALLERY, settings, by_part=True)
    queries, galleries = (
        embed(CONFIG, variables, split.images, batch_size=8) for split in (QUERY, GALLERY)
    )
    expected = {}
    for part in embedding_parts(CONFIG):
        columns = part.columns(CONFIG)
        cosines = [
            each[:, columns] / np.linalg.norm(each[:, columns], axis=1, keepdims=True)
            for each in (queries, galleries)
        ]
        metrics = rank_features(*cosines, *LABELS)
        expected[part.kind, part.name] = (
            *(len(columns), metrics.cmc[0], metrics.mean_ap),
            *(metrics.mean_ap_official, metrics.mean_inp),
        )
    found = {
        (part.kind, part.name): (
            *(part.width, part.rank_1, part.mean_ap),
            *(part.mean_ap_official, part.mean_inp),
        )
        for part in result.parts
    }
    assert found == expected
    assert found["all", "all"][1:3] == (result.plain.cmc[0], result.plain.mean_ap)
    assert len(set(found.values())) > 3  # the parts do differ


def test_only_part_is_all():
    random = np.random.default_rng(0)
    queries, galleries = (
        random.normal(size=(len(split.pids), SINGLE.embed_dim)) for split in (QUERY, GALLERY)
    )
    whole = rank_features(queries, galleries, *LABELS)
    scores = score_parts(SINGLE, queries, galleries, LABELS, whole)
    assert [part.kind for part in scores] == ["all", "branch", "path", "region", "feature"]
    assert {(part.rank_1, part.mean_ap, part.mean_inp) for part in scores} == {
        (whole.cmc[0], whole.mean_ap, whole.mean_inp)
    }


def test_length_of_a_part_does_not_count():
    random = np.random.default_rng(0)
    width = embedding_width(CONFIG)
    queries, galleries = (
        random.normal(size=(len(split.pids), width)) for split in (QUERY, GALLERY)
    )
    whole = rank_features(queries, galleries, *LABELS)
    scaled = galleries * random.uniform(0.1, 10, (len(galleries), 1))
    scores = score_parts(CONFIG, queries, galleries, LABELS, whole)
    assert score_parts(CONFIG, queries, scaled, LABELS, whole) == scores
