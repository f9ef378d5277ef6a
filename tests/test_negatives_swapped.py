"""Swapped pictures: never the same, from pools of any size."""

from dataclasses import replace

import numpy as np
import pytest

from tiny import pair, picture, prompt
from verisight.data.images import image_hash
from verisight.negatives.pictures_swapped import TRIES, Swapped
from verisight.types import ImageRef, UserError

POOL = [pair(i) for i in range(100, 120)]


def seeded(seed=0):
    return np.random.default_rng(seed)


def two_pictures(index):
    return replace(prompt(index), images=(picture(index), picture(index + 50)))


def copies(num, index=0):
    """Rows with the same picture under other names."""
    return [replace(p, prompt=replace(prompt(index), uid=f"copy{i}")) for i, p in enumerate(POOL[:1] * num)]


def test_swapped_pictures_are_never_the_same_under_another_name(tmp_path):
    file = tmp_path / "copy.png"
    file.write_bytes(prompt(0).images[0].data)
    named = replace(POOL[0], prompt=replace(prompt(5), images=(ImageRef(path=file),)))
    pool = [*copies(18), named, POOL[1]]
    for seed in range(60):
        seen = Swapped(pool).spoil(prompt(0), rng=seeded(seed))
        assert seen.prompt.images[0].data == POOL[1].prompt.images[0].data
        assert seen.notes == {"kind": "swapped", "rows": ["row101"], "sha256": [image_hash(POOL[1].prompt.images[0])]}


def test_swapped_knows_pictures_of_coco_by_number():
    own, anew, other = (
        replace(pair(i), prompt=replace(prompt(i), split_group=f"coco:{number:012}"))
        for i, number in enumerate([7, 7, 8])
    )
    drawn = {Swapped([own, anew, other]).spoil(own.prompt, rng=seeded(i)).notes["rows"][0] for i in range(20)}
    assert drawn == {"row2"}
    rows = [replace(p, prompt=replace(p.prompt, split_group="all")) for p in POOL]
    assert Swapped(rows).spoil(rows[0].prompt, rng=seeded()).notes["rows"] != ["row100"]


def test_swapped_takes_every_other_row_alike():
    drawn = [Swapped(POOL).spoil(POOL[3].prompt, rng=seeded(i)).notes["rows"][0] for i in range(400)]
    assert set(drawn) == {p.prompt.uid for p in POOL} - {"row103"}
    assert max(map(drawn.count, set(drawn))) < 45


def test_swapped_takes_as_many_pictures_as_there_are():
    double = replace(POOL[1], prompt=two_pictures(200))
    seen = Swapped([double]).spoil(two_pictures(0), rng=seeded())
    assert seen.notes["rows"] == ["row200"]
    assert [ref.data for ref in seen.prompt.images] == [ref.data for ref in double.prompt.images]
    seen = Swapped([POOL[0], POOL[1]]).spoil(two_pictures(0), rng=seeded())
    assert sorted(seen.notes["rows"]) == ["row100", "row101"]
    assert len(Swapped([double]).spoil(prompt(0), rng=seeded()).prompt.images) == 1


@pytest.mark.parametrize("pool", [[], copies(1), copies(5), [replace(pair(1), prompt=replace(prompt(1), images=()))]])
def test_a_pool_without_another_picture_is_refused(pool):
    found = f"found 0 in {len(pool)} rows drawn from {len(pool)}"
    with pytest.raises(UserError, match=f"tiny#0: row 'row0' needs 1 other pictures for view swapped, {found}"):
        Swapped(pool).spoil(prompt(0), rng=seeded())


class Huge:
    """A pool that makes rows when asked, and counts."""

    def __init__(self, num, row=lambda row: pair(row % 7 + 1)):
        self.num, self.row, self.asked = num, row, 0

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        assert 0 <= index < self.num
        self.asked += 1
        return self.row(index)


def test_of_a_huge_pool_every_part_is_drawn():
    asked = []
    pool = Huge(10**9, row=lambda row: asked.append(row) or pair(1))
    for seed in range(50):
        Swapped(pool).spoil(prompt(0), rng=seeded(seed))
    assert len(asked) == len(set(asked)) == 50
    assert min(asked) < 10**8
    assert max(asked) > 9 * 10**8


def test_a_huge_pool_is_not_scanned():
    pool = Huge(10**9)
    view = Swapped(pool)
    assert pool.asked == 0
    assert "row" in view.spoil(prompt(0), rng=seeded()).notes["rows"][0]
    assert pool.asked == 1
    same = Huge(10**9, row=lambda _: pair(0))
    with pytest.raises(UserError, match=f"found 0 in {TRIES} rows drawn from 1000000000"):
        Swapped(same).spoil(prompt(0), rng=seeded())
    assert same.asked == TRIES
    assert len(repr(view)) < 20
