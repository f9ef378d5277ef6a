"""Data sets composed like an experiment: draws that stay, splits that tear no picture apart, answers swapped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verisight.data.compose import keep, mix, replace_answer, seen, split, take
from verisight.data.store import Stored, store
from verisight.data.views import Chain, Groups, Singles, View
from verisight.types import Answer, ImageRef, Message, Pair, Prompt, UserError


def pair(number: int, *, picture: int | None = None, chosen: str = "", rejected: str = "", text: str = "") -> Pair:
    picture = number if picture is None else picture
    images = (ImageRef(data=b"picture %d" % picture, sha256=f"{picture:064d}"),)
    prompt = Prompt(
        f"u{number}", images, text or f"What is in {number}?", split_group=f"name:{picture}", provenance=f"f#{number}"
    )
    chosen, rejected = chosen or f"right {number}", rejected or f"wrong {number}"
    return Pair(prompt, Answer(chosen), (Answer(rejected),), (1.0,), origin="made")


PAIRS = [pair(number) for number in range(100)]


def uids(rows: Sequence[Pair]) -> list[str]:
    return [one.prompt.uid for one in rows]


# take


def test_a_smaller_draw_is_part_of_a_larger_one_in_the_old_order() -> None:
    small, large = (take(PAIRS, num, seed=3) for num in (10, 60))
    assert (len(small), len(large)) == (10, 60)
    assert set(uids(small)) < set(uids(large))
    assert uids(large) == sorted(uids(large), key=lambda uid: int(uid[1:]))
    assert uids(take(PAIRS, 10, seed=4)) != uids(small)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(30)))
def test_a_draw_does_not_depend_on_the_order_of_the_file(order: list[int]) -> None:
    assert set(uids(take([PAIRS[i] for i in order], 7, seed=0))) == set(uids(take(PAIRS[:30], 7, seed=0)))


def test_what_was_drawn_before_is_no_likelier_to_be_drawn_again() -> None:
    """60 of 60 and 60 drawn of 600, then 30 of both: 15 of each, standard deviation 2.4."""
    many = [pair(number) for number in range(660)]
    both = Chain([many[:60], take(many[60:], 60, seed=0)])
    firsts = sum(int(uid[1:]) < 60 for uid in uids(take(both, 30, seed=0)))
    assert 6 <= firsts <= 24


def test_the_side_of_a_coco_picture_is_the_same_in_every_data_set() -> None:
    def numbered(number: int, hashed: str) -> Pair:
        made = pair(number)
        images = (replace(made.prompt.images[0], sha256=hashed),)
        return replace(made, prompt=replace(made.prompt, images=images, split_group=f"coco:{number:012d}"))

    one, other = ([numbered(n, f"{salt + 7919 * n % 1000:064x}") for n in range(60)] for salt in (0, 1000))
    held = {o.prompt.split_group for o in split(other, "held_out", share=0.3, seed=1)}
    assert held
    assert not held & {o.prompt.split_group for o in split(Chain([one, other]), "train", share=0.3, seed=1)}
    assert not held & {o.prompt.split_group for o in split(one, "train", share=0.3, seed=1)}


def test_a_draw_is_fair() -> None:
    """1,000 draws of 5 from 20: each pair 250 times, standard deviation 13.7."""
    counts = Counter(uid for seed in range(1000) for uid in uids(take(PAIRS[:20], 5, seed=seed)))
    assert len(counts) == 20
    assert all(abs(num - 250) < 70 for num in counts.values())


def test_more_than_there_are_cannot_be_taken() -> None:
    with pytest.raises(UserError, match="take: found 101 of 100 pairs; accepted: 1 to 100"):
        take(PAIRS, 101, seed=0)


def test_every_step_stands_in_the_provenance() -> None:
    rows = take(keep(PAIRS, lambda one: one.prompt.uid != "u0", told="filter x=1"), 99, seed=2)
    assert rows[0].prompt.provenance == "f#1 > filter x=1 > take 99 (seed 2)"


# views


def test_views_are_sequences() -> None:
    rows = Chain([PAIRS[:3], View(PAIRS, [5, 4]), PAIRS[7:8]])
    assert uids(rows) == ["u0", "u1", "u2", "u5", "u4", "u7"]
    assert (rows[-1].prompt.uid, uids(rows[1:-1]), uids(rows[::2])) == (
        "u7",
        ["u1", "u2", "u5", "u4"],
        ["u0", "u2", "u4"],
    )
    assert uids(rows[2:4][1:]) == ["u5"]
    for index in (6, -7):
        with pytest.raises(IndexError):
            rows[index]
    groups = Groups(rows)
    assert (len(groups), groups[1], groups[4:][1]) == (6, PAIRS[1].group, PAIRS[7].group)


def test_a_row_of_several_turns_becomes_one_example_an_answer() -> None:
    follow_up = (Message("user", "And?"), Message("assistant", "More."))
    several = replace(
        PAIRS[1], chosen=Answer("First.", follow_up), notes={"rejected_model": "x", "changed": {}, "a": 1}
    )
    rows = Singles([PAIRS[0], several])
    assert uids(rows) == ["u0", "u1/0", "u1/1"]
    assert [one.chosen.text for one in rows] == ["right 0", "First.", "More."]
    assert (rows[2].prompt.text, rows[2].prompt.history[1].text) == ("And?", "First.")
    assert all(one.rejected == one.weights == () for one in rows)
    assert rows[1].notes == {"a": 1}


def test_a_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    path = ImageRef(path=tmp_path / "a.png", sha256="0" * 64)
    member = ImageRef(path=tmp_path / "a b.zip", member="deep/::b.png")
    history = (Message("user", "Hm?"), Message("assistant", "Hm."))
    odd = replace(
        PAIRS[0], prompt=replace(PAIRS[0].prompt, images=(path, member), history=history), notes={"a": [1, None]}
    )
    rows = [*PAIRS, odd, replace(PAIRS[1], rejected=(), weights=())] * 4
    stored = store(tmp_path / "rows.arrow", iter(rows))
    assert list(stored) == rows
    assert [stored[index] for index in range(len(stored))] == rows
    assert stored[-1] == rows[-1]
    assert list(stored[100:102]) == rows[100:102]
    assert list(store(tmp_path / "none.arrow", [])) == []
    (tmp_path / "rows.arrow").write_bytes(b"ARROW1 torn")
    with pytest.raises(UserError, match=r"rows\.arrow: not a store of pairs .*delete it"):
        Stored(tmp_path / "rows.arrow")


# mix


def test_a_mixture_has_the_shares_it_was_asked_for() -> None:
    one, other = PAIRS[:50], PAIRS[50:]
    rows = mix([one, other], [3, 1], num=41, seed=0)
    assert Counter(int(uid[1:]) >= 50 for uid in uids(rows)) == {False: 31, True: 10}
    assert len(set(uids(rows))) == 41
    assert rows[0].prompt.provenance.endswith(" > take 31 (seed 0) > mix 0.75")
    assert len(mix([one, other[:10]], [1, 1], num=None, seed=0)) == 20
    with pytest.raises(UserError, match="mix: part 1: found a share of 30 pairs, it has 10"):
        mix([one, other[:10]], [1, 1], num=60, seed=0)


# split


@settings(max_examples=30, deadline=None)
@given(
    pictures=st.lists(st.integers(0, 12), min_size=1, max_size=60), share=st.floats(0.05, 0.95), seed=st.integers(0, 5)
)
def test_a_split_tears_no_picture_apart(pictures: list[int], share: float, seed: int) -> None:
    rows = [pair(number, picture=picture) for number, picture in enumerate(pictures)]
    train, held_out = (split(rows, part, share=share, seed=seed) for part in ("train", "held_out"))
    assert sorted(uids(train) + uids(held_out)) == sorted(uids(rows))
    assert not {one.prompt.images for one in train} & {one.prompt.images for one in held_out}
    again = split(rows[::-1], "train", share=share, seed=seed)
    assert set(uids(again)) == set(uids(train))


def test_pairs_that_share_a_picture_over_others_stay_together() -> None:
    """1 and 2 share a file, 2 and 3 a COCO number, 3 and 4 are the rows of two pictures each."""
    images = [pair(number).prompt.images[0] for number in range(6)]
    chained = [
        replace(PAIRS[n], prompt=replace(PAIRS[n].prompt, images=shown, split_group=group))
        for n, (shown, group) in enumerate(
            [
                ((images[0],), "name:a"),
                ((images[0], images[1]), "coco:1"),
                ((images[2],), "coco:1"),
                ((images[2],), "b"),
            ]
        )
    ]
    for seed in range(20):
        sides = [len(split(chained, part, share=0.5, seed=seed)) for part in ("train", "held_out")]
        assert sorted(sides) == [0, 4]


def test_the_side_of_a_picture_without_number_goes_by_its_file() -> None:
    """Not by the names that one set gives it: another set has others."""
    named = [replace(one, origin=origin) for origin in ("0", "z") for one in PAIRS[:40]]
    sides = [{one.prompt.uid for one in split(named[i : i + 40], "train", share=0.5, seed=0)} for i in (0, 40)]
    assert sides[0] == sides[1]


def test_equal_names_in_different_sets_are_different_pictures() -> None:
    rows = [replace(PAIRS[0], origin="a"), replace(pair(1), origin="b")]
    rows[1] = replace(rows[1], prompt=replace(rows[1].prompt, split_group=rows[0].prompt.split_group))
    sides = {tuple(uids(split(rows, "train", share=0.5, seed=seed))) for seed in range(30)}
    assert ("u0",) in sides or ("u1",) in sides


# prompts and answers of other data


def test_prompts_that_other_data_has_or_has_not() -> None:
    follow_up = (Message("user", "what  is IN 3?"), Message("assistant", "More."))
    others = [PAIRS[1], replace(pair(30, picture=2, text="What is in 2?"), chosen=Answer("x", follow_up))]
    for wanted, numbers in ((True, [1, 2]), (False, [0, 3, 4])):
        found = seen(PAIRS[:5], others, wanted=wanted, match="prompt", told="seen")
        assert uids(found) == [f"u{n}" for n in numbers]
    found = seen(PAIRS[:5], others, wanted=True, match="question", told="seen")
    assert uids(found) == ["u1", "u2", "u3"]


def test_a_prompt_is_known_by_its_coco_number_whatever_the_file() -> None:
    def numbered(hashed: str) -> Pair:
        images = (replace(PAIRS[0].prompt.images[0], sha256=hashed * 64),)
        return replace(PAIRS[0], prompt=replace(PAIRS[0].prompt, images=images, split_group="coco:000000000009"))

    assert len(seen([numbered("a")], [numbered("b")], wanted=True, match="prompt", told="seen")) == 1
    assert len(seen([numbered("a")], PAIRS, wanted=True, match="prompt", told="seen")) == 0


def test_an_answer_is_replaced_by_that_of_its_counterpart() -> None:
    others = [
        replace(pair(1, rejected="corrupted 1"), notes={"rejected_model": "oracle", "chosen_model": "no"}),
        pair(2, chosen="another", rejected="corrupted 2"),
        pair(3, rejected="right 3"),
        replace(pair(4), rejected=(), weights=()),
    ]
    rows = [
        replace(one, notes={"rejected_model": "llava", "chosen_model": "gpt4v", "changed": {}}) for one in PAIRS[:5]
    ]
    found, bad = replace_answer(rows, others, "rejected", match="prompt_and_chosen", told="rejected from")
    assert [(one.chosen.text, one.rejected[0].text) for one in found] == [("right 1", "corrupted 1")]
    assert found[0].notes == {"rejected_model": "oracle", "chosen_model": "gpt4v"}
    assert found[0].prompt.provenance == "f#1 > rejected from f#1"
    assert [(one.row, one.reason, one.fault) for one in bad] == [
        (0, "no counterpart", False), (2, "no counterpart", False), (3, "chosen equals rejected", False),
        (4, "counterpart has no such answer", False),
    ]  # fmt: skip
    licensed = [
        replace(one, notes={"license": tag}) for one, tag in ((rows[1], "cc-by-4.0"), (others[0], "cc-by-nc-4.0"))
    ]
    found, _ = replace_answer(licensed[:1], licensed[1:], "rejected", match="prompt", told="rejected from")
    assert found[0].notes["license"] == "cc-by-4.0 and cc-by-nc-4.0"
    found, bad = replace_answer(rows[2:3], others, "chosen", match="prompt", told="chosen from")
    assert (found[0].chosen.text, found[0].rejected[0].text, bad) == ("another", "wrong 2", [])
