"""Spoiled pictures: the noise schedule, what is drawn, what stays, and that the policy sees a difference."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tiny import CHOSEN, pair, picture, prompt, tiny_policy
from verisight.data.encoded import ImageError
from verisight.data.images import image_hash, load_image
from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always
from verisight.negatives.guidance import Free
from verisight.negatives.pictures import Blank, Cropped, Degraded, Noised, diffuse
from verisight.negatives.pictures_swapped import Swapped
from verisight.types import Answer, Group, ImageRef, Sampled, UserError

POOL = [pair(i) for i in range(100, 120)]
DRAWN = [Noised(), Noised(100, "wrap"), Cropped(), Degraded(), Swapped(POOL)]
VIEWS = [*DRAWN, Blank(), Blank("mean"), Blank("black")]
OWN_SIZE = [view for view in VIEWS if not isinstance(view, Swapped)]


def seeded(seed=0):
    return np.random.default_rng(seed)


def shown(pixels):
    """A prompt with a picture of these pixels."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return replace(prompt(0), images=(ImageRef(data=buffer.getvalue()),))


def pixels_of(ref):
    return np.asarray(load_image(ref))


def spoiled_pixels(view, one, seed=0):
    return pixels_of(view.spoil(one, rng=seeded(seed)).prompt.images[0])


def two_pictures(index):
    return replace(prompt(index), images=(picture(index), picture(index + 50)))


# --- every view


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_words_stay_and_every_picture_is_another(view):
    one = replace(two_pictures(0), text="What?", provenance="set#1")
    seen = view.spoil(one, rng=seeded())
    assert replace(seen.prompt, images=one.images) == one
    assert len(seen.prompt.images) == 2
    assert len({image_hash(ref) for ref in (*one.images, *seen.prompt.images)}) == (3 if isinstance(view, Blank) and
        view.colour != "mean" else 4)  # fmt: skip
    for ref in seen.prompt.images:
        assert ref.sha256 == image_hash(replace(ref, sha256=None))
        assert load_image(ref).mode == "RGB"
    assert seen.notes["kind"] == type(view).__name__.lower()


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_a_draw_is_its_streams_alone(view):
    rows = [prompt(0), two_pictures(1), prompt(2)]
    policy = None
    whole = view.look(policy, rows, rngs=[seeded(i) for i in range(3)])
    alone = [view.look(policy, [row], rngs=[seeded(i)])[0] for i, row in enumerate(rows)]
    again = [view.spoil(row, rng=seeded(i)) for i, row in enumerate(rows)]
    assert whole == alone == again


@pytest.mark.parametrize("view", DRAWN, ids=repr)
def test_a_further_draw_is_another(view):
    rng = seeded()
    drawn = {view.spoil(prompt(0), rng=rng).prompt.images for _ in range(4)}
    assert len(drawn) > 1


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_rows_without_pictures_are_named_and_refused(view):
    with pytest.raises(UserError, match=r"tiny#7: row 'row7' has no picture, view \w+ has nothing to spoil"):
        view.spoil(replace(prompt(7), images=()), rng=seeded())


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_pictures_that_cannot_be_read_are_named(view, tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png"):
        view.spoil(replace(prompt(0), images=(ImageRef(path=tmp_path / "gone.png"),)), rng=seeded())


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 70), height=st.integers(1, 70), thin=st.sampled_from(["", "width", "height"]))
def test_pictures_of_all_sizes_keep_theirs(width, height, thin):
    width, height = (1 if thin == "width" else width), (1 if thin == "height" else height)
    one = shown(seeded(width * 71 + height).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for view in OWN_SIZE:
        assert spoiled_pixels(view, one).shape == (height, width, 3)


def test_full_resolution_is_spoiled_and_kept_without_loss(tmp_path):
    wide = Image.fromarray(seeded().integers(0, 256, (50, 333, 3), dtype=np.uint8))
    wide.save(tmp_path / "wide.jpg", quality=95)
    one = replace(prompt(0), images=(ImageRef(path=tmp_path / "wide.jpg"),))
    noise = seeded(4).standard_normal((50, 333, 3), dtype=np.float32)
    expected = diffuse(pixels_of(one.images[0]), noise=noise, steps=500, overflow="wrap")
    assert (spoiled_pixels(Noised(overflow="wrap"), one, seed=4) == expected).all()


# --- single views


def test_blank_pictures_have_one_colour():
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[..., 0], pixels[:, :3, 1], pixels[:1, :, 2] = 200, 101, 255
    one = shown(pixels)
    for view, colour in ((Blank(), [128] * 3), (Blank("black"), [0] * 3), (Blank("mean"), [200, 50, 64])):
        assert (spoiled_pixels(view, one) == colour).all()
        assert view.spoil(one, rng=seeded()).notes == {"kind": "blank", "colour": view.colour, "rgb": [colour]}


def test_crops_keep_the_drawn_share_and_the_shape_and_come_from_everywhere():
    across, down = np.meshgrid(np.arange(200), np.arange(100))
    one = shown(np.stack([across, down, np.zeros_like(down)], axis=-1).astype(np.uint8))
    rng, shares, lefts = seeded(), [], []
    for _ in range(300):
        seen = Cropped(0.05, 0.2).spoil(one, rng=rng)
        [left, top, right, bottom], [width, height] = seen.notes["boxes"][0], seen.notes["sizes"][0]
        assert (width, height) == (200, 100)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left) / (bottom - top) == pytest.approx(2, rel=0.05)
        shares.append((right - left) * (bottom - top) / (width * height))
        lefts.append(left / (width - (right - left)))
        found = pixels_of(seen.prompt.images[0])
        assert (found[..., 0].min(), found[..., 0].max()) == (left, right - 1)
        assert (found[..., 1].min(), found[..., 1].max()) == (top, bottom - 1)
    assert min(shares) == pytest.approx(0.05, abs=0.005)
    assert max(shares) == pytest.approx(0.2, abs=0.005)
    assert np.mean(shares) == pytest.approx(0.125, abs=0.01)
    assert (min(lefts), max(lefts)) == pytest.approx((0, 1), abs=0.02)
    assert np.mean(lefts) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("width", "height"), [(1000, 1), (1, 1000), (2, 500)])
def test_crops_of_thin_pictures_keep_their_share(width, height):
    one = shown(np.zeros((height, width, 3), dtype=np.uint8))
    [[left, top, right, bottom]] = Cropped(0.1, 0.1).spoil(one, rng=seeded()).notes["boxes"]
    assert (right - left) * (bottom - top) == pytest.approx(0.1 * width * height, abs=1)


def test_a_crop_is_at_least_a_pixel_any_pixel_and_nothing_around_it():
    one, rng, drawn = shown(seeded().integers(0, 256, (2, 3, 3), dtype=np.uint8)), seeded(), set()
    for _ in range(100):
        seen = Cropped(0, 0).spoil(one, rng=rng)
        [[left, top, right, bottom]] = seen.notes["boxes"]
        assert (right - left, bottom - top) == (1, 1)
        assert (pixels_of(seen.prompt.images[0]) == pixels_of(one.images[0])[top, left]).all()
        drawn.add((left, top))
    assert len(drawn) == 6


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.2), (0.3, 0.2), (0.5, 1.1), (1, 1), (float("nan"), 0.5)])
def test_shares_that_are_none_are_refused(low, high):
    with pytest.raises(UserError, match=r"low, high: found .*; accepted: shares"):
        Cropped(low, high)


def test_both_ways_of_degrading():
    detailed = shown(seeded(2).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    rng, ways = seeded(), []
    for _ in range(200):
        seen = Degraded().spoil(detailed, rng=rng)
        [way] = seen.notes["ways"]
        ways.append(way)
        if "shrunk" in way:
            assert pixels_of(seen.prompt.images[0]).std() < 30  # 74 before: detail is gone
    jittered = [way for way in ways if "hue" in way]
    assert 70 <= len(jittered) <= 130
    for name, low, high in (("brightness", 0.5, 1.5), ("hue", -0.3, 0.3)):
        values = [way[name] for way in jittered]
        assert (min(values), max(values)) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_jitter_turns_the_hue_and_scales_brightness():
    red, rng = shown(np.tile(np.array([160, 0, 0], dtype=np.uint8), (8, 8, 1))), seeded()
    for _ in range(20):
        seen = Degraded().spoil(red, rng=rng)
        found = pixels_of(seen.prompt.images[0])[0, 0].astype(int)
        if "hue" in (way := seen.notes["ways"][0]):
            assert found.max() == pytest.approx(min(255, 160 * way["brightness"]), abs=2)
            assert found.argmax() == (0 if abs(way["hue"]) < 1 / 6 else 1 if way["hue"] > 0 else 2)


# --- in use


class Writes:
    """A policy that remembers the pictures it is shown."""

    def __init__(self):
        self.shown = []

    def sample(self, prompts, **options):
        self.shown.append([p.images for p in prompts])
        return [[Sampled("A horse.", (), False)] for _ in prompts]


class Never(Always):
    def keep(self, references, candidates):
        return np.zeros(len(references), dtype=bool), np.full(len(references), 0.99)


@pytest.mark.parametrize("view", DRAWN, ids=repr)
def test_every_round_draws_anew_and_notes_tell_the_last(view):
    policy = Writes()
    method = Hallucinate(view=view, guidance=Free(9), check=Never(), rounds=4)
    rows = [prompt(0), prompt(1)]
    made = method(policy, rows, [CHOSEN, CHOSEN], seed=0)
    assert len(policy.shown) == 4
    for row in range(2):
        assert len({shown[row] for shown in policy.shown}) > 1
    assert all(negative.view["kind"] == type(view).__name__.lower() for negative in made)
    assert method(Writes(), rows[1:], [CHOSEN], seed=0)[0] == made[1]


@pytest.fixture(scope="module")
def seeing():
    """The tiny policy, with eyes that matter."""
    policy = tiny_policy()
    policy.core.model.multi_modal_projector.linear_2.weight.data.mul_(30)
    return policy


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_the_policy_sees_the_difference(seeing, view):
    [look] = view.look(seeing, [prompt(0)], rngs=[seeded()])
    scores = [
        float(seeing.score([Group(one, (Answer(CHOSEN),))]).logp_sum[0]) for one in (prompt(0), prompt(0), look.prompt)
    ]
    assert scores[0] == scores[1]
    assert abs(scores[0] - scores[2]) > 1e-3
