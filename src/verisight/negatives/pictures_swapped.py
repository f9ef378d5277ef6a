"""Swapped pictures: a prompt with those of other rows of the set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from verisight.data.images import image_hash
from verisight.models.policy import Policy
from verisight.negatives.pictures import check_shown, spoil_each
from verisight.negatives.views import Seen
from verisight.types import ImageRef, Pair, Prompt, UserError

TRIES = 256


@dataclass(frozen=True, slots=True)
class Swapped:
    """Pictures of other rows of `pool`, as many as the prompt has, whatever their size.

    Rows are drawn and read one at a time, without replacement from a pool of up to 256 rows; of a larger one, 256 at
    most. A row shows the same as the prompt when their encoded bytes are equal or both are the same picture of COCO;
    the same picture encoded anew under another name is not recognised.
    """

    pool: Sequence[Pair] = field(repr=False)

    def spoil(self, prompt: Prompt, *, rng: np.random.Generator) -> Seen:
        """Other pictures. Notes: `rows`, the uids they came from, and `sha256`, one a picture.

        Raises:
            UserError: the prompt has no picture, or no other pictures were found.
            ImageError: a picture cannot be read.
        """
        check_shown(prompt, "swapped")
        own = {image_hash(ref) for ref in prompt.images}
        taken: list[ImageRef] = []
        rows = []
        for other in self._drawn(rng):
            if _same_coco(prompt, other):
                continue
            hashed = [replace(ref, sha256=image_hash(ref)) for ref in other.images]
            found = [ref for ref in hashed if ref.sha256 not in own][: len(prompt.images) - len(taken)]
            if found:
                rows.append(other.uid)
                taken += found
            if len(taken) == len(prompt.images):
                notes = {"kind": "swapped", "rows": rows, "sha256": [ref.sha256 for ref in taken]}
                return Seen(replace(prompt, images=tuple(taken)), notes=notes)
        raise UserError(
            f"{prompt.provenance or 'row'}: row {prompt.uid!r} needs {len(prompt.images)} other pictures for view "
            f"swapped, found {len(taken)} in {min(len(self.pool), TRIES)} rows drawn from {len(self.pool)}; "
            "accepted: a data set of different pictures"
        )

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """Other pictures for every prompt."""
        return spoil_each(self, prompts, rngs=rngs)

    def _drawn(self, rng: np.random.Generator) -> Iterator[Prompt]:
        num = len(self.pool)
        order = rng.permutation(num) if num <= TRIES else rng.integers(num, size=TRIES)
        return (self.pool[index].prompt for index in order.tolist())


def _same_coco(one: Prompt, two: Prompt) -> bool:
    return one.split_group.startswith("coco:") and one.split_group == two.split_group
