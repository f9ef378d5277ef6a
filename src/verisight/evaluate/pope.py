"""POPE: yes/no questions about objects that are, or aren't, in the picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from verisight.data.images import resolve_image
from verisight.evaluate.benchmark import Item
from verisight.evaluate.coco import Truth, read_ground_truth
from verisight.evaluate.stats import Counts, Measure, ratio, summarise
from verisight.types import Decoding, ImageRef, Prompt, UserError

Split = Literal["random", "popular", "adversarial"]
SPLITS: tuple[Split, ...] = ("random", "popular", "adversarial")
_UNSURE = re.compile(
    r"\b(?:unclear|unsure|uncertain|maybe|perhaps|possibly|not (?:sure|certain|clear)|not possible to"
    r"|(?:cannot|can't|can not|unable to|hard to|impossible to) (?:tell|say|see clearly|determine))\b"
)
_AFFIRMS = {
    "is", "are", "there", "there's", "shows", "show", "contains", "has", "have", "features", "includes",
    "see", "visible", "seen",
}  # fmt: skip
_COLUMNS = 6  # counts of one split: right, true yes, said yes, is yes, unparsed, questions


class Question(NamedTuple):
    """Is there an `object` in the image? `label` is the right answer."""

    image_id: int
    object: str
    label: Literal["yes", "no"]

    @property
    def text(self) -> str:
        """The question as it is asked."""
        return f"Is there {'an' if self.object[0] in 'aeiou' else 'a'} {self.object} in the image?"


def build_questions(
    truth: Mapping[int, Truth], *, num_images: int, per_image: int = 3, seed: int, split: Split
) -> list[Question]:
    """A balanced split: for each image `per_image` objects that are there and as many that aren't, in turn.

    The algorithm of Li et al. 2023 (Evaluating Object Hallucination in Large Vision-Language Models): images
    with at least `per_image` objects are sampled (the same ones for every split of a seed); positives are an
    image's first objects; a negative is drawn uniformly (random), is the most frequent class (popular), or
    the one most often seen together with this positive (adversarial; random where none is left), never one
    that is there or was asked about. Frequencies are those of the sampled images; ties keep the order of
    first appearance.

    Raises:
        UserError: too few images hold enough objects, or an image leaves too few absent classes.
    """
    if num_images < 1 or per_image < 1:
        raise UserError(f"pope: num_images is {num_images}, per_image {per_image}; accepted is 1 or more for both")
    eligible = [each for each in truth.values() if len(each.ordered) >= per_image]
    if len(eligible) < num_images:
        raise UserError(
            f"pope: num_images is {num_images}, but only {len(eligible)} of {len(truth)} images hold "
            f"{per_image} or more objects; lower num_images or per_image"
        )
    picked = np.random.default_rng([seed, 0]).choice(len(eligible), size=num_images, replace=False)
    images = [eligible[at] for at in picked]
    classes, together = _frequencies(images)
    rng = np.random.default_rng([seed, 1])
    questions = []
    for image in images:
        asked = set(image.ordered)
        if len(classes) - len(asked) < per_image:
            raise UserError(
                f"pope: image {image.image_id} holds {len(asked)} of the {len(classes)} classes in the "
                f"sample, which leaves fewer than per_image={per_image} to ask about; take more images or "
                "lower per_image"
            )
        for positive in image.ordered[:per_image]:
            absent = [name for name in classes if name not in asked]
            ranked = {"random": [], "popular": absent, "adversarial": together[positive]}[split]
            negative = next((name for name in ranked if name not in asked), None)
            negative = negative or absent[int(rng.integers(len(absent)))]
            asked.add(negative)
            questions.append(Question(image.image_id, positive, "yes"))
            questions.append(Question(image.image_id, negative, "no"))
    return questions


def parse_official(answer: str) -> Literal["yes", "no"]:
    """The official rule: "no" if the text before the first "." holds No, no or not as a word, else "yes"."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def parse_corrected(answer: str) -> Literal["yes", "no"] | None:
    """What the first sentence says, or None if it neither affirms nor denies (counted as wrong).

    A leading yes or no decides. Else doubt gives None, a negation in any case or contracted form gives no,
    and a "yes" or an affirming verb gives yes.
    """
    sentences = re.split(r"[.!?\n]", answer.strip().lower().replace("\u2019", "'"))
    words = re.findall(r"[a-z']+", sentences[0])
    if not words:
        return None
    if words[0] in ("yes", "no"):
        return "yes" if words[0] == "yes" else "no"
    if _UNSURE.search(sentences[0]):
        return None
    if any(word in ("no", "not", "none", "cannot", "without") or word.endswith("n't") for word in words):
        return "no"
    return "yes" if "yes" in words or _AFFIRMS & set(words) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pope:
    """POPE's three splits in one benchmark; rows carry truth.split and truth.label.

    The images are a seeded sample of our own (the official sample had no seed), the construction is the
    official one. `suffix` is put after every question (LLaVA-1.5: a line break and "Answer the question using
    a single word or phrase."). `parser` "official" reproduces the published rule with its faults, "corrected"
    repairs them.
    """

    images: Path
    instances: Path
    captions: Path | None = None
    num_images: int = 500
    per_image: int = 3
    seed: int = 0
    suffix: str = ""
    parser: Literal["official", "corrected"] = "official"
    max_new_tokens: int = 128

    @property
    def name(self) -> str:
        """Its file name and summary key."""
        return "pope"

    @property
    def protocol(self) -> str:
        """Which parser reads the answers."""
        return self.parser

    @property
    def decoding(self) -> Decoding:
        """Greedy; 128 tokens as in LLaVA-1.5's script."""
        return Decoding(max_new_tokens=self.max_new_tokens, temperature=0.0)

    def items(self) -> list[Item]:
        """Every split's questions. Errors as in `build_questions` and `read_ground_truth`."""
        truths = read_ground_truth(self.instances, self.captions)
        items = []
        for split in SPLITS:
            questions = build_questions(
                truths, num_images=self.num_images, per_image=self.per_image, seed=self.seed, split=split
            )
            for at, question in enumerate(questions):
                file_name, group = truths[question.image_id].file_name, str(question.image_id)
                path = resolve_image(self.images, file_name)
                if path is None:
                    raise UserError(f"{self.instances}: image {group} is {file_name}, not in {self.images}")
                uid, text = f"pope/{split}/{at}", question.text + self.suffix
                prompt = Prompt(uid, (ImageRef(path=path),), text, split_group=group, provenance="pope")
                known = {
                    "split": split,
                    "label": question.label,
                    "object": question.object,
                    "image": file_name,
                }
                items.append(Item(uid, prompt, group, known))
        return items

    def score(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Adds `said` ("yes", "no" or None: unparsed) and `correct` to each row."""
        return score(rows, parse=parse_official if self.parser == "official" else parse_corrected)

    def summary(self, scored: Sequence[dict[str, Any]], *, seed: int = 0) -> dict[str, Any]:
        """See `measures`."""
        return summarise(measures(scored), [row["cluster"] for row in scored], seed=seed)


def score(rows: Sequence[dict[str, Any]], *, parse: Callable[[str], str | None]) -> list[dict[str, Any]]:
    """Adds `said` ("yes", "no" or None: `parse` can't tell) and `correct` to each row."""
    said = [parse(row["answer"]) for row in rows]
    return [
        row | {"said": word, "correct": word == row["truth"]["label"]} for row, word in zip(rows, said, strict=True)
    ]


def measures(scored: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    """POPE's metrics before they are summed; "yes" is the positive class, an unparsed answer is wrong.

    Per split `<split>/accuracy`, precision, recall, f1, yes_fraction and unparsed_fraction; over the splits
    `f1` and `accuracy`, the mean of the values of those that were asked, and `pooled/f1` and `pooled/accuracy`, of
    all their questions together. Papers report any of these four.
    """
    counts = np.zeros((len(scored), len(SPLITS) * _COLUMNS))
    for row, line in zip(counts, scored, strict=True):
        first = SPLITS.index(line["truth"]["split"]) * _COLUMNS
        is_yes, said = line["truth"]["label"] == "yes", line["said"]
        columns = (line["correct"], is_yes and said == "yes", said == "yes", is_yes, said is None, True)
        row[first : first + _COLUMNS] = columns
    found = {}
    for at, split in enumerate(SPLITS):
        right, hits, said_yes, is_yes, unparsed, asked = counts[:, at * _COLUMNS : (at + 1) * _COLUMNS].T
        num = int(asked.sum())

        def measure(over: Counts, under: Counts, better: Any, num: int = num) -> Measure:
            return Measure(np.column_stack([over, under]), ratio, better, num_items=num)

        found[f"{split}/accuracy"] = measure(right, asked, "higher")
        found[f"{split}/precision"] = measure(hits, said_yes, "higher")
        found[f"{split}/recall"] = measure(hits, is_yes, "higher")
        found[f"{split}/f1"] = measure(2 * hits, said_yes + is_yes, "higher")
        found[f"{split}/yes_fraction"] = measure(said_yes, asked, "neutral")
        found[f"{split}/unparsed_fraction"] = measure(unparsed, asked, "neutral")
    asked_in = [split for split in SPLITS if found[f"{split}/accuracy"].num_items] or list(SPLITS)
    for name in ("f1", "accuracy"):
        parts = [found[f"{split}/{name}"].counts for split in asked_in]
        found[name] = Measure(np.hstack(parts), _mean_ratio, "higher")
        found[f"pooled/{name}"] = Measure(np.sum(parts, axis=0), ratio, "higher")
    return found


def _mean_ratio(sums: Counts) -> Counts:
    return np.mean([ratio(sums[:, at : at + 2]) for at in range(0, sums.shape[1], 2)], axis=0)


def _frequencies(images: Sequence[Truth]) -> tuple[list[str], dict[str, list[str]]]:
    """Classes, most frequent first, and for each class the others, most often seen together with it first."""
    frequency: Counter[str] = Counter()
    together: dict[str, Counter[str]] = {}
    for image in images:
        for name in image.ordered:
            frequency[name] += 1
            together.setdefault(name, Counter()).update(other for other in image.ordered if other != name)
    ranked = {name: [other for other, _ in others.most_common()] for name, others in together.items()}
    return [name for name, _ in frequency.most_common()], ranked
