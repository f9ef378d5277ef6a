"""The scribe: wrong answers that are wrong, in words that Rewrite takes; other words only where it is noisy."""

from collections.abc import Callable

import numpy as np
import pytest

from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always
from verisight.negatives.rewrite import Rewrite
from verisight.negatives.rewrite_prompt import EXAMPLES, ask, read_reply
from verisight.negatives.views import Clean
from verisight.pocket.datasets import png, scene, write_split
from verisight.pocket.known import KnownScenes, task_of
from verisight.pocket.language import DETAIL_PROMPTS, Narrator
from verisight.pocket.oracle import judge
from verisight.pocket.scribe import Scribe
from verisight.pocket.voices import existence, tell
from verisight.types import ImageRef, Prompt, Request, UserError

NUM_SCENES = 25


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of a few scenes with their pictures."""
    return write_split(tmp_path_factory.mktemp("world"), "preference", num=NUM_SCENES)


@pytest.fixture(scope="module")
def asked(world):
    """Prompts with true and with biased answers, a description and a yes/no question about every scene."""
    made = []
    for index in range(NUM_SCENES):
        one, rng = scene("preference", index), np.random.default_rng(index)
        image = ImageRef(path=world / "images" / f"{one.uid:012d}.png")
        about = existence(one, rng)
        made.append((Prompt(f"{index}-a", (image,), DETAIL_PROMPTS[index % 4]), Narrator().caption(one, rng)))
        made.append((Prompt(f"{index}-b", (image,), about.question), tell(about, Narrator(), rng)))
        biased = Narrator(rename=0.7, agree=0.9)
        made.append((Prompt(f"{index}-c", (image,), DETAIL_PROMPTS[0]), biased.caption(one, rng)))
        made.append((Prompt(f"{index}-d", (image,), about.question), tell(about, biased, rng)))
    return made


def hallucinate(scribe, asked, *, seed=0):
    method = Hallucinate(Clean(), Rewrite(scribe, show_image=True), Always(), rounds=1)
    prompts, references = zip(*asked, strict=True)
    return method(None, prompts, references, seed=seed)


def more_faults(scenes, asked, made):
    return [
        judge(task_of(prompt, scenes), one.text).num_faults - judge(task_of(prompt, scenes), reference).num_faults
        for (prompt, reference), one in zip(asked, made, strict=True)
    ]


def test_every_answer_is_more_wrong_at_the_first_attempt(world, asked):
    scenes = KnownScenes(world / "scenes.json")
    made = hallucinate(Scribe(scenes), asked)
    assert set(more_faults(scenes, asked, made)) == {1, 2}
    yes_no = [more for (one, _), more in zip(asked, more_faults(scenes, asked, made), strict=True) if "?" in one.text]
    assert yes_no.count(1) > len(yes_no) / 2
    assert {one.notes["attempts"] for one in made} == {1}
    assert {one.notes["writer"] for one in made} == {"scribe, noise 0"}
    assert all(one.spans for one in made)


def test_noise_is_other_words_for_half_of_its_share(world, asked):
    scenes = KnownScenes(world / "scenes.json")
    shares = []
    for noise in (0.4, 1.0):
        runs = [more_faults(scenes, asked, hallucinate(Scribe(scenes, noise=noise, seed=s), asked)) for s in range(4)]
        shares.append(np.mean([more == 0 for run in runs for more in run]))
    num = 4 * len(asked)
    for share, wanted in zip(shares, (0.2, 0.5), strict=True):
        assert abs(share - wanted) < 4 * (wanted * (1 - wanted) / num) ** 0.5


def test_replies_belong_to_the_request_not_to_the_batch(world, asked):
    scribe = Scribe(world / "scenes.json", noise=0.5, seed=3)
    whole = hallucinate(scribe, asked)
    assert [hallucinate(scribe, [one])[0] for one in asked[::-1]] == whole[::-1]
    texts = [one.text for one in whole]
    assert [one.text for one in hallucinate(scribe, asked, seed=1)] != texts
    other = Scribe(world / "scenes.json", noise=0.5, seed=4)
    assert [one.text for one in hallucinate(other, asked)] != texts


def request(images, question="Describe this image in detail.", answer="The image shows a farm."):
    return Request("r", ask(Prompt("r", (), question), answer, examples=EXAMPLES), images)


def test_pictures_held_as_bytes_are_known_by_their_looks(world):
    one = scene("preference", 3)
    true = Narrator().caption(one, np.random.default_rng(0))
    (reply,) = Scribe(world / "scenes.json").ask([request((ImageRef(data=png(one)),), answer=true)])
    changed, problem = read_reply(reply.text, true)
    assert not problem
    scenes = KnownScenes(world / "scenes.json")
    task = task_of(Prompt("r", (ImageRef(data=png(one)),), "Describe this image in detail."), scenes)
    assert judge(task, changed).num_faults in (1, 2)


def test_what_the_scribe_does_not_answer(world):
    scribe = Scribe(world / "scenes.json")
    image = ImageRef(path=world / "images" / f"{scene('preference', 0).uid:012d}.png")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: scribe.ask([request(())]), "row r: found 0 pictures"),
        (lambda: scribe.ask([request((image,), "Who is this?")]), "knows no answer to 'Who is this"),
        (lambda: scribe.ask([Request("r", "Say something wrong.", (image,))]), "request r: the scribe does not know"),
        (lambda: Scribe(world / "scenes.json", noise=1.5), "noise: found 1.5; accepted: 0 to 1"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
