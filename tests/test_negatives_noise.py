"""Noise of many diffusion steps at once: its schedule, its statistics, and what happens beyond black and white."""

import math
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import prompt
from verisight.data.images import load_image
from verisight.negatives.pictures import Noised, alpha_bar, diffuse
from verisight.types import ImageRef, UserError

PLENTY = 256  # side of a picture for statistics


def seeded(seed=0):
    return np.random.default_rng(seed)


def shown(pixels):
    """A prompt with a picture of these pixels."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return replace(prompt(0), images=(ImageRef(data=buffer.getvalue()),))


def noised(view, one, seed=0):
    return np.asarray(load_image(view.spoil(one, rng=seeded(seed)).prompt.images[0]))


def test_the_share_of_the_picture_that_is_left():
    left = 1.0
    for k in range(1000):
        left *= 1 - ((0.5e-2 - 1e-5) / (1 + math.exp(6 - 12 * k / 999)) + 1e-5)
        assert alpha_bar(k) == pytest.approx(left, rel=1e-12)
    assert math.sqrt(alpha_bar(500)) == pytest.approx(0.8630, abs=5e-5)
    assert math.sqrt(1 - alpha_bar(500)) == pytest.approx(0.5052, abs=5e-5)
    assert math.sqrt(alpha_bar(499)) == pytest.approx(0.8641, abs=5e-5)
    assert math.sqrt(1 - alpha_bar(499)) == pytest.approx(0.5033, abs=5e-5)


def test_the_schedule_is_that_of_the_code_for_povid():
    betas = torch.sigmoid(torch.linspace(-6, 6, 1000)) * (0.5e-2 - 1e-5) + 1e-5
    assert torch.cumprod(1 - betas, dim=0).tolist() == pytest.approx([alpha_bar(k) for k in range(1000)], rel=1e-4)


@pytest.mark.parametrize("steps", [0, -1, 1000])
def test_steps_without_noise_or_beyond_the_schedule_are_refused(steps):
    with pytest.raises(UserError, match=f"steps: found {steps}; accepted: 1 to 999"):
        Noised(steps)
    assert Noised(1).steps == 1
    assert Noised(999).steps == 999


def normal_cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def moments(grey, *, steps, overflow):
    """Mean and standard deviation of one pixel: its probability of each whole number, summed."""
    centre, spread = math.sqrt(alpha_bar(steps)) * grey, 255 * math.sqrt(1 - alpha_bar(steps))

    def mass(low, high):
        return normal_cdf((high - centre) / spread) - normal_cdf((low - centre) / spread)

    chances = np.zeros(256)
    for number in range(-2000, 2000):
        if overflow == "clamp":
            chances[min(max(number, 0), 255)] += mass(number - 0.5, number + 0.5)
        else:  # fractions are cut off, towards 0
            low, high = number - (number <= 0), number + (number >= 0)
            chances[number % 256] += mass(low, high)
    assert chances.sum() == pytest.approx(1)
    mean = chances @ np.arange(256)
    return mean, math.sqrt(chances @ (np.arange(256) - mean) ** 2)


@pytest.mark.parametrize("overflow", ["clamp", "wrap"])
@pytest.mark.parametrize("steps", [10, 500, 999])
@pytest.mark.parametrize("grey", [0, 60, 128, 255])
def test_noise_over_a_plain_picture_has_the_mean_and_spread_of_the_formula(grey, steps, overflow):
    plain = np.full((PLENTY, PLENTY, 3), grey, dtype=np.uint8)
    found = noised(Noised(steps, overflow), shown(plain)).astype(float)
    mean, spread = moments(grey, steps=steps, overflow=overflow)
    error = 5 / math.sqrt(found.size)
    assert found.mean() == pytest.approx(mean, abs=error * spread + 1e-3)
    assert found.std() == pytest.approx(spread, rel=2 * error, abs=1e-3)
    channels = found.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.05


def test_wrapped_noise_is_what_a_cast_to_bytes_gives():
    rng = seeded(3)
    pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    signal, sigma = np.float32(math.sqrt(alpha_bar(500))), np.float32(math.sqrt(1 - alpha_bar(500)))
    mixed = (signal * (pixels.astype(np.float32) / 255) + sigma * noise) * 255
    assert ((mixed < 0) | (mixed > 255)).mean() > 0.2
    wrapped = diffuse(pixels, noise=noise, steps=500, overflow="wrap")
    assert (wrapped == np.trunc(mixed) % 256).all()
    clamped = diffuse(pixels, noise=noise, steps=500, overflow="clamp")
    assert (clamped == np.rint(np.clip(mixed, 0, 255))).all()
    assert np.abs(wrapped.astype(int) - clamped).mean() > 40


def test_with_little_noise_the_picture_stays():
    one = prompt(0)
    before, after = np.asarray(load_image(one.images[0])).astype(float), noised(Noised(1), one)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.99


def test_noise_of_high_pictures_is_one_stream():
    pixels = seeded(1).integers(0, 256, (300, 7, 3), dtype=np.uint8)
    noise = seeded(5).standard_normal(pixels.shape, dtype=np.float32)
    assert (noised(Noised(), shown(pixels), seed=5) == diffuse(
        pixels, noise=noise, steps=500, overflow="clamp"
    )).all()  # fmt: skip
