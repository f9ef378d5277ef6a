"""CHAIR: which objects a free description names, and which of them aren't in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verisight.data.images import resolve_image
from verisight.evaluate.benchmark import Item
from verisight.evaluate.chair_words import Find, Words, finder, protocol_name
from verisight.evaluate.coco import read_ground_truth
from verisight.evaluate.position import read_scenes, scene_counts
from verisight.evaluate.stats import Measure, mean_among, ratio_measure, summarise
from verisight.types import Decoding, ImageRef, Prompt, UserError

Row = dict[str, Any]
PROMPT = "Please describe this image in detail."
DECODING = Decoding(max_new_tokens=512, temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chair:
    """CHAIR (Rohrbach et al. 2018, Object Hallucination in Image Captioning) over COCO-format ground truth.

    The formulas are the official ones. `words` says how objects are found in texts: "official" with the official
    pipeline and its faults, "corrected" without them; the list of synonyms is ours (`verisight.evaluate.objects`)
    unless `synonyms` names one in the official format. `limit` takes the first images of the instances file. `scenes`
    (a pocket world's scenes.json) adds position_accuracy and typical_fraction to the same answers.
    """

    images: Path
    instances: Path
    captions: Path | None = None
    scenes: Path | None = None
    prompt: str = PROMPT
    limit: int | None = None
    words: Words = "official"
    synonyms: Path | None = None
    max_new_tokens: int = 512

    @property
    def name(self) -> str:
        """Its file name and summary key."""
        return "chair"

    @property
    def protocol(self) -> str:
        """Which rules the numbers follow, and whose synonyms."""
        return protocol_name(self.words, self.synonyms)

    @property
    def decoding(self) -> Decoding:
        """Greedy."""
        return Decoding(max_new_tokens=self.max_new_tokens, temperature=0.0)

    def items(self) -> list[Item]:
        """One question an image.

        Raises:
            UserError: `limit` is below 1, a ground-truth file is malformed, or a picture or its scene is
            missing.
        """
        if self.limit is not None and self.limit < 1:
            raise UserError(f"chair: limit is {self.limit}; accepted is 1 or more, or none for all images")
        scenes = read_scenes(self.scenes) if self.scenes else None
        items = []
        known_truths = read_ground_truth(self.instances, self.captions, find=finder(self.words, self.synonyms))
        for truth in list(known_truths.values())[: self.limit]:
            path = resolve_image(self.images, truth.file_name)
            if path is None:
                raise UserError(f"{self.instances}: image {truth.image_id} is {truth.file_name}, not in {self.images}")
            known: dict[str, Any] = {"objects": list(truth.ordered), "image": truth.file_name}
            if scenes is not None:
                if truth.image_id not in scenes:
                    raise UserError(f"{self.scenes}: no entry for image {truth.image_id} of {self.instances}")
                known["scene"] = scenes[truth.image_id]
            uid, group = f"chair/{truth.image_id}", str(truth.image_id)
            prompt = Prompt(uid, (ImageRef(path=path),), self.prompt, split_group=group, provenance="chair")
            items.append(Item(uid, prompt, group, known))
        if not items:
            raise UserError(f"{self.instances}: `images` is empty; at least one image is needed")
        return items

    def score(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Adds mentions (name, start, end, hallucinated) and num_* counts to each row."""
        return score(rows, find=finder(self.words, self.synonyms))

    def summary(self, scored: Sequence[dict[str, Any]], *, seed: int = 0) -> dict[str, Any]:
        """See `measures`."""
        return summarise(measures(scored), [row["cluster"] for row in scored], seed=seed)


def score(rows: Sequence[Row], *, find: Find) -> list[Row]:
    """Adds mentions (name, start, end, hallucinated) and num_* counts to each row. `find` finds objects in a text."""
    return [row | _counts(row["answer"], row["truth"], find) for row in rows]


def measures(scored: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    """CHAIR's metrics before they are summed.

    chair_i: made-up mentions / mentions; chair_s: answers with one / answers; recall: different true objects
    found / true objects; length_words: mean words an answer; truncated_fraction: answers cut off by the token
    limit. With scenes: position_accuracy, present objects put into their right cell / those given a cell;
    typical_fraction, made-up mentions of an object usual in that kind of place / made-up mentions.
    """

    def column(key: str) -> list[float]:
        return [float(row[key]) for row in scored]

    ones = [1.0] * len(scored)
    made_up = column("num_hallucinated")
    found = {
        "chair_i": ratio_measure(made_up, column("num_mentions"), better="lower"),
        "chair_s": ratio_measure([float(num > 0) for num in made_up], ones, better="lower"),
        "recall": ratio_measure(column("num_true_found"), column("num_true"), better="higher"),
        "length_words": ratio_measure(column("num_words"), ones, better="neutral", fraction=False),
        "truncated_fraction": _truncated(scored),
    }
    if scored and "num_placed" in scored[0]:
        right = column("num_placed_right")
        found["position_accuracy"] = ratio_measure(right, column("num_placed"), better="higher")
        found["typical_fraction"] = ratio_measure(column("num_typical"), made_up, better="neutral")
    return found


def _truncated(scored: Sequence[Row]) -> Measure:
    """Of the answers of which it is known: other tools don't say it."""
    cut = [row.get("truncated") for row in scored]
    return mean_among(cut, [isinstance(one, bool) for one in cut], better="neutral")


def _counts(answer: str, truth: dict[str, Any], find: Find) -> dict[str, Any]:
    present = set(truth["objects"])
    mentions = [
        {"name": m.name, "start": m.start, "end": m.end, "hallucinated": m.name not in present} for m in find(answer)
    ]
    made_up = [str(m["name"]) for m in mentions if m["hallucinated"]]
    counts = {
        "mentions": mentions,
        "num_mentions": len(mentions),
        "num_hallucinated": len(made_up),
        "num_true_found": len(present & {m["name"] for m in mentions}),
        "num_true": len(present),
        "num_words": len(answer.split()),
    }
    return counts | (scene_counts(answer, made_up, truth["scene"]) if "scene" in truth else {})
