"""Writes a network as an ONNX model: plain convolutions, batch norm folded into them.

The graph computes what `evaluation.embedding.embed_batch` does, in NCHW and float32. The paths of a
branch use the same arrays, as they use the same weights. Receptive paths fold their stripes along
the batch by reshaping.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Literal

import numpy as np

from rmgl_jax.config import ModelConfig
from rmgl_jax.data.normalization import MEAN, STD
from rmgl_jax.export.onnx_graph import GraphWriter
from rmgl_jax.export.onnx_pooling import activation_balanced_pool, uniform_stripe_pool
from rmgl_jax.export.weights import to_arrays
from rmgl_jax.models.folding import batch_norm_name, fold_batch_norm
from rmgl_jax.models.rmgl import BranchModule, FeatureSpec, branch_modules, feature_layout
from rmgl_jax.stages import (
    STEM,
    FoldPosition,
    Layer,
    bottleneck,
    map_stride,
    residual_stages,
)

ImageInput = Literal["uint8", "float", "normalized"]
"""Images that a graph takes: "uint8" or "float" `[B, H, W, 3]` with RGB values 0..255, or
"normalized" `[B, 3, H, W]`, normalized by ImageNet's mean and standard deviation."""

INPUT, OUTPUT = "images", "embedding"
"""Names of the graph's input and output."""


def onnx_model(
    config: ModelConfig,
    variables: Mapping[str, Any],
    *,
    flip: bool = True,
    image_input: ImageInput = "uint8",
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """Makes an `onnx.ModelProto` that maps B images to unit embeddings `[B, E]`, for any B.

    The arithmetic is float32, also of a network with `config.dtype="bfloat16"`.

    Args:
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model.
        flip: Average each embedding with that of the mirrored image, in the graph.
        image_input: see `ImageInput`.
        metadata: strings that are stored with the model.

    Raises:
        MissingPackageError: the package onnx is not installed.
        InputError: the weights are too large for an ONNX file.
    """
    graph = GraphWriter()
    arrays = to_arrays(fold_batch_norm(variables))
    _write_convolutions(graph, arrays)
    height, width = config.image_size
    images = _read_images(graph, image_input)
    if flip:
        # Both halves of one batch, so that every layer is computed by one node.
        images = graph.add("Concat", images, _mirror(graph, images), axis=0)
    pooled = _pool(graph, config, _last_maps(graph, config, images))
    embedding = _reduce(graph, config, arrays, pooled)
    width_of_embedding = len(feature_layout(config)) * config.embed_dim
    if flip:
        halves = graph.reshape(embedding, [2, -1, width_of_embedding])
        embedding = graph.reduce("Sum", halves, axis=0)
    # As in `embed_batch`, an all-zero embedding stays zero.
    norm = graph.reduce("L2", embedding, axis=1, keepdims=True)
    norm = graph.add("Max", norm, graph.constant(1e-12, np.float32))
    graph.add("Div", embedding, norm, output=OUTPUT)
    shape = (3, height, width) if image_input == "normalized" else (height, width, 3)
    dtype = np.uint8 if image_input == "uint8" else np.float32
    return graph.model(
        "rmgl",
        {INPUT: (dtype, ("batch", *shape))},
        {OUTPUT: (np.float32, ("batch", width_of_embedding))},
        metadata or {},
    )


def _write_convolutions(graph: GraphWriter, arrays: Mapping[str, np.ndarray]) -> None:
    """Stores `MODULE/weight` (OIHW) and `MODULE/bias` of each convolution and its batch norm."""
    prefix = "params/backbone/"
    for name, kernel in arrays.items():
        if not (name.startswith(prefix) and name.endswith("/kernel")):
            continue
        module = name.removeprefix(prefix).removesuffix("/kernel")
        graph.weight(f"{module}/weight", kernel.transpose(3, 2, 0, 1))
        graph.weight(f"{module}/bias", arrays[f"{prefix}{batch_norm_name(module)}/bias"])


def _read_images(graph: GraphWriter, image_input: ImageInput) -> str:
    """Normalized images `[B, 3, H, W]` from the graph's input."""
    if image_input == "normalized":
        return INPUT
    images = graph.transpose(INPUT, [0, 3, 1, 2])
    if image_input == "uint8":
        images = graph.cast(images, np.float32)
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (MEAN, STD))
    images = graph.add("Mul", images, graph.constant(1 / (255 * std), np.float32))
    return graph.add("Sub", images, graph.constant(mean / std, np.float32))


def _mirror(graph: GraphWriter, images: str) -> str:
    """Reverses the columns of `[B, 3, H, W]`."""
    start, stop, axis = -1, np.iinfo(np.int64).min, 3
    ranges = [graph.constant([value]) for value in (start, stop, axis, -1)]
    return graph.add("Slice", images, *ranges)


def _last_maps(graph: GraphWriter, config: ModelConfig, images: str) -> dict[str, str]:
    """The last map of each path by `FeatureSpec.map_name`, unfolded; see `models.rmgl.Backbone`."""
    computed: dict[tuple[str, int], str] = {}  # by module and number of folds
    maps = {}
    for path in _paths(config):
        x, folds, count = images, 1, _folds(config, path)
        if config.fold_at == "input" and count > 1:
            x, folds = _fold(graph, config, x, "input", count), count
        for module in branch_modules(config, path[0].granularity):
            key = (module.name, folds)
            if key not in computed:
                computed[key] = _module(graph, config, x, module)
            x = computed[key]
            if module.ends == config.fold_at and count > 1:
                x, folds = _fold(graph, config, x, config.fold_at, count), count
        maps[path[0].map_name] = _unfold(graph, config, x, folds)
    return maps


def _paths(config: ModelConfig) -> list[list[FeatureSpec]]:
    """The features of each path of each branch."""
    groups = groupby(feature_layout(config), key=lambda feature: feature.map_name)
    return [list(features) for _, features in groups]


def _folds(config: ModelConfig, path: list[FeatureSpec]) -> int:
    """Stripes that a path folds its map into; 1 is no fold."""
    return config.fold_stripes(path[0].branch) if path[0].path == "receptive" else 1


def _module(graph: GraphWriter, config: ModelConfig, x: str, module: BranchModule) -> str:
    if module.segment is None:
        convolution, pooling = STEM
        x = graph.add("Relu", _convolve(graph, x, f"{module.name}/conv", convolution))
        return graph.add("MaxPool", x, **_window(pooling))
    for block in range(module.segment.start, module.segment.stop):
        stride = module.stride if block == 0 else 1
        x = _block(graph, config, x, f"{module.name}/block{block + 1}", stride, project=block == 0)
    return x


def _block(
    graph: GraphWriter, config: ModelConfig, x: str, module: str, stride: int, project: bool
) -> str:
    """A bottleneck; see `models.resnet.Bottleneck`."""
    reduce, spatial, expand = bottleneck(stride, config.stride_in_1x1)
    y = graph.add("Relu", _convolve(graph, x, f"{module}/conv1", reduce))
    y = graph.add("Relu", _convolve(graph, y, f"{module}/conv2", spatial))
    y = _convolve(graph, y, f"{module}/conv3", expand)
    if project:
        x = _convolve(graph, x, f"{module}/conv_shortcut", Layer(kernel=1, stride=stride))
    return graph.add("Relu", graph.add("Add", y, x))


def _convolve(graph: GraphWriter, x: str, module: str, layer: Layer) -> str:
    return graph.add("Conv", x, f"{module}/weight", f"{module}/bias", **_window(layer))


def _window(layer: Layer) -> dict[str, Any]:
    """Attributes of a convolution or a pooling."""
    return {
        "kernel_shape": [layer.kernel] * 2,
        "strides": [layer.stride] * 2,
        "pads": [(layer.kernel - 1) // 2] * 4,
    }


def _fold(graph: GraphWriter, config: ModelConfig, x: str, stage: FoldPosition, folds: int) -> str:
    """`[B, C, H, W] -> [B*S, C, H/S, W]`; see `models.partition.fold`."""
    height, width = _map_size(config, stage)
    channels = 3 if stage == "input" else _channels(config, stage)
    x = graph.reshape(x, [0, 0, folds, height // folds, width])
    x = graph.transpose(x, [0, 2, 1, 3, 4])
    return graph.reshape(x, [-1, channels, height // folds, width])


def _unfold(graph: GraphWriter, config: ModelConfig, x: str, folds: int) -> str:
    """`[B*S, C, H/S, W] -> [B, C, H, W]` of the last map."""
    if folds == 1:
        return x
    height, width = _map_size(config, config.last_stage)
    channels = _channels(config, config.last_stage)
    x = graph.reshape(x, [-1, folds, channels, height // folds, width])
    x = graph.transpose(x, [0, 2, 1, 3, 4])
    return graph.reshape(x, [0, 0, height, width])


def _map_size(config: ModelConfig, stage: FoldPosition) -> tuple[int, int]:
    height, width = config.image_size
    return height // map_stride(stage), width // map_stride(stage)


def _channels(config: ModelConfig, stage: FoldPosition) -> int:
    """Channels of the map `stage`, from the stem on."""
    if stage == "stem":
        return config.width
    expand = bottleneck(1, config.stride_in_1x1)[-1]
    return config.width * residual_stages(stage)[-1].width * expand.width


def _pool(graph: GraphWriter, config: ModelConfig, maps: Mapping[str, str]) -> str:
    """Global and stripe vectors `[B, N, C]`; see `models.rmgl.RMGL.pool`."""
    channels = _channels(config, config.last_stage)
    parts = []
    for path in _paths(config):
        source = maps[path[0].map_name]
        height, width = _map_size(config, config.last_stage)
        if path[0].granularity == 1:
            # A convolution of stride 2 keeps the first of an odd number of rows.
            height, width = (-(-size // config.global_stride) for size in (height, width))
        if path[0].stripe == 0:
            parts.append(uniform_stripe_pool(graph, source, height, width, 1, config.global_pool))
        stripes = path[-1].stripe
        balanced = config.uses_abp(path[0].path, train=False)
        reduce = config.stripe_pool(path[0].path, train=False)
        if balanced and stripes > 1:
            parts.append(activation_balanced_pool(graph, source, channels, height, stripes, reduce))
        elif stripes:  # One balanced stripe is the whole map.
            parts.append(uniform_stripe_pool(graph, source, height, width, stripes, reduce))
    return graph.add("Concat", *parts, axis=1)


def _reduce(
    graph: GraphWriter, config: ModelConfig, arrays: Mapping[str, np.ndarray], pooled: str
) -> str:
    """The features, concatenated: `[B, N, C] -> [B, N*D]`; see `models.heads.Reduction`."""
    kernel = arrays["params/reduction/kernel"]
    weight = graph.weight("reduction/weight", kernel)
    summand = graph.weight("reduction/bias", arrays["params/reduction/bn/bias"][:, None, :])
    x = graph.add("MatMul", graph.transpose(pooled, [1, 0, 2]), weight)  # [N, B, D]
    x = graph.add("Add", x, summand)
    if config.reduction_relu:
        x = graph.add("Relu", x)
    heads, _, width = kernel.shape
    return graph.reshape(graph.transpose(x, [1, 0, 2]), [-1, heads * width])
