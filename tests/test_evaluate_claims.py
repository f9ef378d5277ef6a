"""What descriptions claim, of any model's words, and which of it is true; derived by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verisight.evaluate.claims import Claim, claims, facts, holds
from verisight.evaluate.objects import CATEGORIES
from verisight.pocket.language import Narrator
from verisight.pocket.scenes import CELLS, KINDS, Placed, Scene, draw_scene

# text -> claims as "kind: what" in any order
TEXTS = [
    ("", []),
    ("There is a dog.", ["object: dog"]),
    ("There is no dog.", []),
    ("There isn't a dog, but a cat.", ["object: cat"]),
    ("There is no dog but a cat lies there.", ["object: cat"]),
    ("A dog is left of a dog.", ["object: dog"]),
    ("A cat without a dog; a bus.", ["object: bus"]),
    ("A dog is in the top left.", ["object: dog", "position: dog top left"]),
    ("No dog is in the top left.", []),
    ("In the center there is a cat.", ["object: cat", "position: cat center"]),
    ("Two dogs play.", ["object: dog", "count: dog 2"]),
    ("Three small brown dogs play.", ["object: dog", "count: dog 3"]),
    ("3 dogs and a cat.", ["object: dog", "object: cat", "count: dog 3"]),
    ("A pair of dogs.", ["object: dog", "count: dog 2"]),
    ("One of the dogs sleeps.", ["object: dog"]),
    ("Exactly one dog.", ["object: dog", "count: dog 1"]),
    ("Several dogs.", ["object: dog"]),
    ("A dog. A dog. A dog.", ["object: dog"]),
    ("The image shows a kitchen.", ["scene: kitchen"]),
    ("This is a busy street with a car.", ["scene: street", "object: car"]),
    ("A street sign.", []),
    ("It is not a beach.", []),
    ("A park bench.", ["object: bench"]),
    ("An office chair stands in the office.", ["object: chair", "scene: office"]),
    ("The scene is a living room.", ["scene: living room"]),
    ("A sunny seaside.", ["scene: beach"]),
    ("The dog is to the left of the cat.", ["object: dog", "object: cat", "relation: dog left cat"]),
    ("A dog sits on the right side of a cat.", ["object: dog", "object: cat", "relation: dog right cat"]),
    ("The kite is above the dog.", ["object: kite", "object: dog", "relation: kite above dog"]),
    ("A dog lies under the bench.", ["object: dog", "object: bench", "relation: dog below bench"]),
    ("The dog is not above the cat.", []),
    (
        "The dog chases the cat left of the bus.",
        ["object: dog", "object: cat", "object: bus", "relation: cat left bus"],
    ),
    ("图中有一只狗。", []),
    ("Dogs! DOGS? dogs...", ["object: dog"]),
    ("The dog\u2019s bowl", ["object: dog", "object: bowl"]),
    ("I can't see anything.", []),
    ("There are no dogs, cats, or buses.", []),
    ("No people, cars or bicycles are visible.", []),
    ("The picture is without cars, people, and dogs.", []),
    ("I do not see a dog, a cat, or a bus, but a kite.", ["object: kite"]),
    ("There is no dog, a cat is in the center, and a bus.", ["object: cat", "object: bus", "position: cat center"]),
    ("There is no dog, and a cat is sitting or lying there.", ["object: cat"]),
    ("There is no dog, only a cat.", ["object: cat"]),
    ("No dog; a cat or a bear.", ["object: cat", "object: bear"]),
    ("There are no dogs, lamps, or cats, and the kite is in the center.", ["object: kite", "position: kite center"]),
    ("There are no dogs, no cats, or buses.", []),
    ("There are no dogs, a cat, no kites or bears.", ["object: cat"]),
    ("A cat instead of a dog. A cat rather than a dog.", []),
    ("There are no dogs, cats, nor buses.", []),
    ("The scene lacks a dog.", []),
    ("The room is devoid of people.", []),
    ("A pair of scissors is in the center.", ["object: scissors", "position: scissors center"]),
    ("Two pairs of scissors.", ["object: scissors", "count: scissors 2"]),
    ("At least two dogs.", ["object: dog"]),
    ("More than 3 dogs.", ["object: dog"]),
    ("Two or three dogs.", ["object: dog"]),
    ("One more dog.", ["object: dog"]),
    ("A bowl is in the center of the table.", ["object: bowl", "object: dining table"]),
    ("A dog is in the center of the image.", ["object: dog", "position: dog center"]),
    ("A dog is in the top left corner of the picture.", ["object: dog", "position: dog top left"]),
    ("The image depicts a bustling city street with a bus.", ["object: bus", "scene: street"]),
    ("A cozy, sunlit living room.", ["scene: living room"]),
    ("Kitchen scene with a bowl.", ["object: bowl", "scene: kitchen"]),
    ("A lively beach scene.", ["scene: beach"]),
    ("A car park, a theme park, a post office.", []),
    ("The dog lies on the kitchen floor.", ["object: dog"]),
]


def named(text: str) -> set[str]:
    return {f"{one.kind}: {' '.join(map(str, one.what))}" for one in claims(text)}


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_claims_by_hand(text: str, expected: list[str]) -> None:
    """Parts that deny claim nothing; "a" counts nothing; a word behind a place makes it another thing."""
    assert named(text) == set(expected)


TRUTH = {
    "place": "park", "usual": ["dog"],
    "objects": [
        {"name": "dog", "cell": "top left"}, {"name": "dog", "cell": "center"}, {"name": "kite", "cell": "top right"},
    ],
}  # fmt: skip
HOLDS = [
    (Claim("object", ("dog",)), True),
    (Claim("object", ("cat",)), False),
    (Claim("position", ("dog", "center")), True),
    (Claim("position", ("dog", "top right")), False),
    (Claim("position", ("cat", "top left")), False),
    (Claim("count", ("dog", 2)), True),
    (Claim("count", ("dog", 1)), False),
    (Claim("count", ("kite", 1)), True),
    (Claim("count", ("cat", 1)), False),
    (Claim("scene", ("park",)), True),
    (Claim("scene", ("beach",)), False),
    (Claim("relation", ("dog", "left", "kite")), True),
    (Claim("relation", ("kite", "left", "dog")), False),
    (Claim("relation", ("kite", "above", "dog")), True),  # of the dog in the center
    (Claim("relation", ("dog", "below", "kite")), True),
    (Claim("relation", ("dog", "above", "cat")), False),
]


@pytest.mark.parametrize(("claim", "expected"), HOLDS)
def test_truth_by_hand(claim: Claim, expected: bool) -> None:
    assert holds(claim, TRUTH) is expected


def test_facts_of_a_scene() -> None:
    assert facts(TRUTH) == [
        Claim("object", ("dog",)), Claim("object", ("kite",)), Claim("position", ("dog", "top left")),
        Claim("position", ("dog", "center")), Claim("position", ("kite", "top right")), Claim("scene", ("park",)),
    ]  # fmt: skip


@given(st.integers(0, 10**6))
def test_the_worlds_own_captions_claim_exactly_its_facts(seed: int) -> None:
    """A truthful caption of any scene: every fact is claimed, and nothing else."""
    import numpy as np

    rng = np.random.default_rng(seed)
    scene = draw_scene(0, rng)
    truth = {"place": scene.kind, "objects": [{"name": one.name, "cell": CELLS[one.cell]} for one in scene.placed]}
    assert set(claims(Narrator().caption(scene, rng))) == set(facts(truth))


def test_every_word_of_the_world_is_known() -> None:
    import numpy as np

    for kind in KINDS:
        scene = Scene(0, kind, (Placed("dog", 0, 32, 0, 0),), 0)
        for seed in range(6):
            assert f"scene: {kind}" in named(Narrator().caption(scene, np.random.default_rng(seed)))
    assert all(f"object: {name}" in named(f"There is a {name}.") for name in CATEGORIES)
