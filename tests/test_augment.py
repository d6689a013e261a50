from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageEnhance

from rmgl_jax.config import (
    AugmentConfig,
    ColorJitterConfig,
    CropResizeShiftConfig,
    RandomCropConfig,
    RandomErasingConfig,
    RandomShiftingConfig,
)
from rmgl_jax.data.augment import augment, random_flip
from rmgl_jax.data.geometric import Box, Placement, crop_resize_paste, identity
from rmgl_jax.data.normalization import normalize
from rmgl_jax.data.photometric import (
    adjust_colors,
    color_jitter,
    draw_erasing,
    draw_jitter,
    erase,
    random_erasing,
)
from rmgl_jax.data.shifting import (
    crop_resize_shift,
    draw_crop,
    draw_crop_resize_shift,
    draw_shifting,
    random_crop,
    random_shifting,
)

pytestmark = pytest.mark.network

PLAIN = AugmentConfig(flip_probability=0.0, shifting=RandomShiftingConfig(probability=0.0))
ALWAYS = {
    "flip": replace(PLAIN, flip_probability=0.5),
    "shifting": replace(PLAIN, shifting=RandomShiftingConfig(probability=1.0)),
    "erasing": replace(PLAIN, erasing=RandomErasingConfig(probability=1.0)),
    "crop": replace(PLAIN, crop=RandomCropConfig(probability=1.0)),
    "jitter": replace(PLAIN, jitter=ColorJitterConfig(probability=1.0)),
    "rcrs": replace(PLAIN, crop_resize_shift=CropResizeShiftConfig(probability=1.0)),
}
EVERYTHING = AugmentConfig(
    shifting=RandomShiftingConfig(probability=0.7),
    erasing=RandomErasingConfig(probability=0.5),
    crop=RandomCropConfig(probability=0.5),
    jitter=ColorJitterConfig(probability=0.5),
    crop_resize_shift=CropResizeShiftConfig(probability=0.5),
)


def noise(batch, height=48, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)


def pictures(batch, height, width, seed=0):
    """Images of smooth colors with some noise, similar to photographs."""
    small = noise(batch, height // 8, width // 8, seed)
    size = (width, height)
    smooth = [np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BICUBIC)) for x in small]
    grain = np.random.default_rng(seed).normal(0, 12, (batch, height, width, 3))
    return np.clip(np.stack(smooth) + grain, 0, 255).astype(np.uint8)


def draws(draw, count, height, width, config, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    function = partial(draw, height=height, width=width, config=config)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(keys))


def apply(function, images, config, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(images))
    return np.asarray(jax.jit(partial(function, config=config))(keys, images))


augment_with_everything = jax.jit(partial(augment, config=EVERYTHING))


def crop_resize_paste_by_pillow(image, placement, fill):
    """Reference of `crop_resize_paste` for one image."""
    (top, left, height, width), (to_top, to_left, to_height, to_width) = placement
    crop = Image.fromarray(image).crop((left, top, left + width, top + height))
    patch = crop.resize((to_width, to_height), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (image.shape[1], image.shape[0]), (fill,) * 3)
    canvas.paste(patch, (to_left, to_top))
    return np.asarray(canvas, np.float32)


def rows_of(placement, count):
    return [jax.tree.map(lambda x: int(x[i]), placement) for i in range(count)]  # noqa: B023


@pytest.mark.parametrize(("height", "width"), [(384, 128), (33, 17)])
def test_random_shifting_equals_crop_resize_and_paste_by_pillow(height, width):
    config = RandomShiftingConfig(probability=1.0)
    images = noise(12, height, width)
    if height > 100:
        images[::2] = pictures(6, height, width)
    placement = draws(draw_shifting, 12, height, width, config)
    result = apply(random_shifting, images, config)
    for image, mine, row in zip(images, result, rows_of(placement, 12), strict=True):
        difference = np.abs(mine - crop_resize_paste_by_pillow(image, row, 127))
        assert difference.mean() < 0.5
        assert difference.max() < 2.0


def test_crop_resize_shift_equals_crop_resize_and_paste_by_pillow():
    config = CropResizeShiftConfig(probability=1.0)
    images = pictures(8, 96, 48)
    placement = draws(draw_crop_resize_shift, 8, 96, 48, config)
    result = apply(crop_resize_shift, images, config)
    for image, mine, row in zip(images, result, rows_of(placement, 8), strict=True):
        assert np.abs(mine - crop_resize_paste_by_pillow(image, row, 127)).max() < 2.0


def test_random_crop_equals_pad_and_crop():
    config = RandomCropConfig(probability=1.0, padding=0.1)
    images = noise(16)
    result = apply(random_crop, images, config)
    target = draws(draw_crop, 16, 48, 24, config).target
    padded = np.pad(images, ((0, 0), (5, 5), (5, 5), (0, 0)))
    for i in range(16):
        top, left = 5 - target.top[i], 5 - target.left[i]
        np.testing.assert_array_equal(result[i], padded[i, top : top + 48, left : left + 24])


def test_crop_resize_paste_of_identity_is_exact():
    images = noise(3)
    placement = jax.tree.map(lambda x: jnp.full(3, x), identity(48, 24))
    np.testing.assert_array_equal(jax.jit(crop_resize_paste)(images, placement, 127), images)


def test_random_shifting_fills_exactly_outside_the_patch():
    images = np.full((64, 48, 24, 3), 255, np.uint8)
    config = RandomShiftingConfig(probability=1.0, fill=7)
    result = apply(random_shifting, images, config, seed=3)
    target = draws(draw_shifting, 64, 48, 24, config, seed=3).target
    row, column = np.arange(48)[None, :, None], np.arange(24)[None, None, :]
    top, left, height, width = (x[:, None, None] for x in target)
    inside = (top <= row) & (row < top + height) & (left <= column) & (column < left + width)
    assert (result[~inside] == 7.0).all()
    np.testing.assert_allclose(result[inside], 255.0, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "smallest"), [(384, 128, 0.5), (17, 400, 0.01), (3, 1, 0.3), (64, 64, 1.0)]
)
def test_draw_shifting_keeps_boxes_inside_the_image(height, width, smallest):
    config = RandomShiftingConfig(
        probability=1.0, min_crop=smallest, min_height=smallest, min_width=smallest
    )
    for box in draws(draw_shifting, 20000, height, width, config):
        assert min(box.top.min(), box.left.min()) >= 0
        assert min(box.height.min(), box.width.min()) >= 1
        assert (box.top + box.height).max() == height
        assert (box.left + box.width).max() == width


def assert_uniform(values, low=0.0, high=1.0):
    assert scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > 0.01


def test_draw_shifting_follows_the_distributions_of_the_paper():
    # On a huge canvas rounding to integer pixels is negligible.
    size = 1_000_000
    config = RandomShiftingConfig(probability=0.8, crop_probability=0.4)
    source, target = draws(draw_shifting, 8000, size, size, config)
    applied = target.width < size
    assert abs(applied.mean() - 0.8) < 0.02
    assert (target.height[~applied] == size).all()
    assert (source.height[~applied] == size).all()

    source, target = (Box(*(x[applied] for x in box)) for box in (source, target))
    assert (source.left == 0).all()
    assert (source.width == size).all()
    cropped = source.height < size
    assert abs(cropped.mean() - 0.4) < 0.02
    assert_uniform(source.height[cropped] / size, 0.7, 1.0)
    assert_uniform(source.top[cropped] / (size - source.height[cropped]))

    height_ratio = target.height / source.height
    for chosen in (cropped, ~cropped):
        highest = size / source.height[chosen]
        assert_uniform((height_ratio[chosen] - 0.5) / (highest - 0.5))
    assert_uniform(target.width / size, 0.5, 1.0)
    down = target.top / np.maximum(size - target.height, 1)
    right = target.left / (size - target.width)
    assert_uniform(down)
    assert_uniform(right)
    independent = np.stack([cropped, height_ratio * source.height, target.width, down, right])
    correlation = np.corrcoef(independent[1:])
    assert np.abs(correlation - np.eye(4)).max() < 0.05


def test_draw_shifting_positions_are_uniform():
    # Both ends of the integer range are as frequent as its middle.
    config = RandomShiftingConfig(probability=1.0, crop_probability=0.0, min_height=1.0)
    config = replace(config, min_width=0.5)
    target = draws(draw_shifting, 20000, 16, 8, config).target
    for width in (5, 6, 7):
        counts = np.bincount(target.left[target.width == width], minlength=8 - width + 1)
        assert len(counts) == 8 - width + 1
        assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_draw_crop_is_uniform_within_the_padding():
    target = draws(draw_crop, 8000, 48, 24, RandomCropConfig(probability=1.0, padding=0.1)).target
    for start in (target.top, target.left):
        assert scipy.stats.chisquare(np.bincount(start + 5, minlength=11)).pvalue > 0.01


def test_draw_crop_resize_shift_follows_its_distributions():
    size = 1_000_000
    config = CropResizeShiftConfig(probability=1.0)
    source, target = draws(draw_crop_resize_shift, 4000, size, size, config)
    for length, start in ((source.height, source.top), (source.width, source.left)):
        assert_uniform(length / size, 0.7, 1.0)
        assert_uniform(start / (size - length))
    assert_uniform(target.top / size, -0.15, 0.15)
    assert_uniform(target.left / size, -0.15, 0.15)
    assert (target.height == size).all()
    assert (target.width == size).all()


def test_draw_erasing_follows_its_distributions():
    config = RandomErasingConfig(probability=0.5, max_area=0.2)
    box = draws(draw_erasing, 8000, 1000, 1000, config)
    erased = box.height > 0
    assert abs(erased.mean() - 0.5) < 0.02
    assert (box.width[~erased] == 0).all()
    box = Box(*(x[erased] for x in box))
    # On a square every drawn rectangle fits, so the distributions are those of the first attempt.
    assert_uniform(box.height * box.width / 1e6, 0.02, 0.2)
    assert_uniform(box.height / box.width, 0.3, 1 / 0.3)
    assert_uniform(box.top / (1000 - box.height))
    assert_uniform(box.left / (1000 - box.width))


def test_draw_erasing_fits_into_an_image_of_a_person():
    box = draws(draw_erasing, 20000, 384, 128, RandomErasingConfig(probability=1.0))
    assert (box.height > 0).all()
    assert min(box.top.min(), box.left.min()) == 0
    assert (box.top + box.height).max() <= 384
    assert (box.left + box.width).max() <= 128
    assert (box.left + box.width).max() == 128


def test_erase_fills_only_its_box():
    images = noise(4)
    box = Box(*(np.array(x) for x in ([3, 0, 40, 9], [2, 0, 20, 9], [5, 48, 8, 0], [6, 24, 4, 0])))
    result = np.asarray(erase(images, box))
    expected = images.astype(np.float32)
    for i in range(4):
        top, left, height, width = (x[i] for x in box)
        expected[i, top : top + height, left : left + width] = 255 * np.float32(
            [0.485, 0.456, 0.406]
        )
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_array_equal(result[3], images[3])
    np.testing.assert_allclose(normalize(result)[1], 0.0, atol=1e-6)


def test_draw_jitter_follows_its_distributions():
    config = ColorJitterConfig(probability=0.5, brightness=0.2, contrast=0.15, saturation=0.1)
    keys = jax.random.split(jax.random.key(0), 8000)
    factors = np.asarray(jax.vmap(partial(draw_jitter, config=config))(keys))
    changed = (factors != 1.0).any(axis=1)
    assert abs(changed.mean() - 0.5) < 0.02
    for column, reach in zip(factors[changed].T, (0.2, 0.15, 0.1), strict=True):
        assert_uniform(column, 1 - reach, 1 + reach)
    assert np.abs(np.corrcoef(factors[changed].T) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize(
    ("factors", "enhancer"),
    [
        ((1.3, 1, 1), ImageEnhance.Brightness),
        ((1, 0.7, 1), ImageEnhance.Contrast),
        ((1, 1.4, 1), ImageEnhance.Contrast),
        ((1, 1, 0.6), ImageEnhance.Color),
        ((1, 1, 1.4), ImageEnhance.Color),
    ],
)
def test_adjust_colors_matches_pillow(factors, enhancer):
    image = pictures(1, 64, 32)[0]
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(sum(factors) - 2), np.float32)
    result = adjust_colors(image[None], jnp.array([factors], jnp.float32))[0]
    # Pillow rounds the gray and truncates the result to integers.
    assert np.abs(result - expected).max() < 1.5


def test_adjust_colors_order_is_brightness_contrast_saturation():
    images = pictures(2, 64, 32)
    factors = jnp.array([[0.8, 1.2, 1.3], [1.2, 0.9, 0.7]])
    steps = images
    for i in range(3):
        steps = adjust_colors(steps, jnp.ones((2, 3)).at[:, i].set(factors[:, i]))
    np.testing.assert_allclose(adjust_colors(images, factors), steps, atol=1e-3)


def test_adjust_colors_by_one_is_exact():
    images = noise(2)
    np.testing.assert_array_equal(adjust_colors(images, jnp.ones((2, 3))), images)


def test_random_flip_mirrors_half_of_the_images():
    images = noise(400, 4, 6)
    keys = jax.random.split(jax.random.key(0), 400)
    result = np.asarray(random_flip(keys, images, 0.5))
    mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (result == images).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 160 < mirrored.sum() < 240
    np.testing.assert_array_equal(random_flip(keys, images, 0.0), images)
    np.testing.assert_array_equal(random_flip(keys, images, 1.0), images[:, :, ::-1])
    # A configuration takes integers where it expects numbers.
    np.testing.assert_array_equal(random_flip(keys, images, 0), images)
    np.testing.assert_array_equal(random_flip(keys, images, 1), images[:, :, ::-1])


def test_normalize_uses_imagenets_mean_and_deviation():
    values = np.array([[0.485, 0.456, 0.406], [0.714, 0.68, 0.631]]) * 255
    np.testing.assert_allclose(normalize(values), [[0] * 3, [1] * 3], atol=1e-6)
    assert normalize(noise(1), jnp.bfloat16).dtype == jnp.bfloat16


def test_augment_without_augmentations_only_normalizes():
    images = noise(5)
    result = augment(jax.random.key(0), images, PLAIN)
    np.testing.assert_array_equal(result, normalize(images))


@pytest.mark.parametrize(
    ("function", "config"),
    [
        (random_shifting, RandomShiftingConfig()),
        (random_crop, RandomCropConfig()),
        (crop_resize_shift, CropResizeShiftConfig()),
        (random_erasing, RandomErasingConfig()),
        (color_jitter, ColorJitterConfig()),
    ],
)
def test_augmentation_of_probability_zero_is_exact(function, config):
    images = noise(5)
    np.testing.assert_array_equal(apply(function, images, config), images)


@pytest.mark.parametrize("name", ALWAYS)
def test_augment_is_deterministic_and_equal_under_jit(name):
    images = noise(8)
    config = ALWAYS[name]
    run = jax.jit(partial(augment, config=config))
    first = np.asarray(run(jax.random.key(1), images))
    np.testing.assert_array_equal(run(jax.random.key(1), images), first)
    np.testing.assert_allclose(augment(jax.random.key(1), images, config), first, atol=2e-5)
    assert (np.asarray(run(jax.random.key(2), images)) != first).any()
    assert (np.asarray(normalize(images)) != first).any()


def test_augment_of_an_image_depends_only_on_its_key():
    images = noise(8)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(5)))(jnp.arange(8))
    together = np.asarray(augment_with_everything(keys, images))
    turned = augment_with_everything(keys[::-1], images[::-1])
    np.testing.assert_array_equal(turned[::-1], together)
    others = np.concatenate([images[:4], noise(4, seed=1)])
    np.testing.assert_array_equal(augment_with_everything(keys, others)[:4], together[:4])


def test_augment_folds_the_image_index_into_a_single_key():
    images = noise(8)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(5)))(jnp.arange(8))
    run = jax.jit(partial(augment, config=ALWAYS["flip"]))
    np.testing.assert_array_equal(run(jax.random.key(5), images), run(keys, images))


def test_augment_of_a_sharded_batch_equals_that_of_one_device():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    images = noise(8)
    keys = jax.random.split(jax.random.key(5), 8)
    sharded = augment_with_everything(*jax.device_put((keys, images), sharding))
    assert len(sharded.sharding.device_set) == 4
    np.testing.assert_allclose(sharded, augment_with_everything(keys, images), atol=2e-5)


def test_augment_enabling_erasing_keeps_other_draws():
    images = noise(8)
    base = AugmentConfig()
    without = apply(augment, images, base)
    erased = replace(base, erasing=RandomErasingConfig(probability=1.0))
    with_erasing = apply(augment, images, erased)
    # Two programs may round differently.
    same = (np.abs(with_erasing - without) < 1e-4).all(axis=-1)
    assert 0.5 < same.mean() < 0.999
    np.testing.assert_allclose(with_erasing[~same], 0.0, atol=1e-6)


def test_augment_returns_the_requested_dtype():
    result = augment(jax.random.key(0), noise(2), PLAIN, jnp.bfloat16)
    assert result.dtype == jnp.bfloat16


def test_crop_resize_paste_shrinks_without_aliasing():
    # A checkerboard of single pixels shrunk to half its size is gray at every position.
    board = np.indices((32, 32)).sum(axis=0) % 2 * 255
    images = np.repeat(board[None, :, :, None], 3, axis=3).astype(np.uint8)
    box = Box(*(np.array([x]) for x in (0, 0, 32, 32)))
    small = Box(*(np.array([x]) for x in (3, 5, 16, 16)))
    result = np.asarray(jax.jit(crop_resize_paste)(images, Placement(box, small), 0))[0, 4:18, 6:20]
    np.testing.assert_allclose(result, 127.5, atol=1e-2)


def test_augment_rejects_invalid_images_and_keys():
    with pytest.raises(TypeError, match="float32"):
        augment(jax.random.key(0), noise(2).astype(np.float32), PLAIN)
    with pytest.raises(ValueError, match=r"\(48, 24, 3\)"):
        augment(jax.random.key(0), noise(1)[0], PLAIN)
    with pytest.raises(ValueError, match=r"\(1, 48, 24, 1\)"):
        augment(jax.random.key(0), noise(1)[..., :1], PLAIN)
    with pytest.raises(ValueError, match=r"\[2\].*\(3,\)"):
        augment(jax.random.split(jax.random.key(0), 3), noise(2), PLAIN)
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        augment(jnp.zeros(2, jnp.uint32), noise(2), PLAIN)
