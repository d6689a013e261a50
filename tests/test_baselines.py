import cv2
import numpy as np
import pytest

from rmgl_jax.evaluation.baselines import color_histogram_embedding, pixel_embedding


@pytest.fixture
def images():
    coarse = np.random.default_rng(0).integers(0, 200, (5, 8, 4, 3), np.uint8)
    return np.stack([cv2.resize(image, (64, 128)) for image in coarse])


@pytest.mark.parametrize(
    ("embed", "width"), [(pixel_embedding, 32 * 16 * 3), (color_histogram_embedding, 6 * 192)]
)
def test_baseline_rows_are_float32_of_unit_length_and_independent(images, embed, width):
    features = embed(images)
    assert features.dtype == np.float32
    assert features.shape == (5, width)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(embed(images[2:3])[0], features[2])
    assert embed(images[:0]).shape == (0, width)


@pytest.mark.parametrize("embed", [pixel_embedding, color_histogram_embedding])
def test_baseline_finds_slightly_changed_image(images, embed):
    noisy = (images + np.random.default_rng(1).integers(0, 4, images.shape)).astype(np.uint8)
    assert (embed(noisy) @ embed(images).T).argmax(1).tolist() == [0, 1, 2, 3, 4]


def test_pixel_embedding_ignores_brightness_but_not_position(images):
    np.testing.assert_allclose(pixel_embedding(images + 30), pixel_embedding(images), atol=1e-5)
    mirrored = pixel_embedding(images[:, :, ::-1])
    assert (mirrored * pixel_embedding(images)).sum(1).max() < 0.9


def test_color_histogram_ignores_position_within_a_stripe_only(images):
    features = color_histogram_embedding(images, stripes=4)
    np.testing.assert_allclose(
        color_histogram_embedding(images[:, :, ::-1], stripes=4), features, atol=1e-6
    )
    upside_down = color_histogram_embedding(images[:, ::-1], stripes=4)
    assert np.abs(upside_down - features).max() > 0.1
    stripes = features.reshape(5, 4, -1)
    np.testing.assert_allclose(upside_down.reshape(5, 4, -1), stripes[:, ::-1], atol=1e-6)


def test_color_histogram_hand_value():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[:, :2] = (255, 0, 0)  # hue 0
    image[:, 2:] = (0, 0, 255)  # hue 120 of 180: bin 8 of 12
    image[:, 3, 1] = (255, 0, 0)
    feature = color_histogram_embedding(image, stripes=2).reshape(2, 12, 4, 4)
    expected = np.zeros((2, 12, 4, 4), np.float32)
    expected[0, 0, 3, 3] = np.sqrt(0.5)
    # Square roots of 3/4 and 1/4: the middle two columns have four pixels in a stripe.
    expected[1, 8, 3, 3], expected[1, 0, 3, 3] = np.sqrt(0.5 * 0.75), np.sqrt(0.5 * 0.25)
    np.testing.assert_allclose(feature, expected, atol=1e-6)


def test_baseline_of_one_color_is_finite():
    gray = np.full((2, 128, 64, 3), 127, np.uint8)
    assert np.isfinite(color_histogram_embedding(gray)).all()
    np.testing.assert_array_equal(pixel_embedding(gray), 0)


@pytest.mark.parametrize("embed", [pixel_embedding, color_histogram_embedding])
def test_baseline_rejects_other_arrays(images, embed):
    with pytest.raises(TypeError, match=r"uint8.* float32"):
        embed(images.astype(np.float32))
    with pytest.raises(ValueError, match=r"\[M, H, W, 3\], got \(128, 64, 3\)"):
        embed(images[0])
    with pytest.raises(ValueError, match=r"got \(5, 128, 64, 1\)"):
        embed(images[..., :1])


def test_color_histogram_rejects_more_stripes_than_rows():
    with pytest.raises(ValueError, match=r"4 rows.* 6 stripes"):
        color_histogram_embedding(np.zeros((1, 4, 4, 3), np.uint8))


@pytest.mark.parametrize("embed", [pixel_embedding, color_histogram_embedding])
def test_baseline_ignores_margins(images, embed):
    other = images.copy()
    other[:, :, :16] = other[:, :, 48:] = 77
    np.testing.assert_array_equal(embed(other), embed(images))
    assert np.abs(embed(other, center=1.0) - embed(images, center=1.0)).max() > 0.01
    assert np.isfinite(embed(images, center=0.001)).all()
    for center in (0.0, 1.1):
        with pytest.raises(ValueError, match=rf"\(0, 1\], got {center}"):
            embed(images, center=center)
