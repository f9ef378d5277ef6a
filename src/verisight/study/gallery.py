"""What to look at in a report: training pairs and answers on test pictures, chosen by a seed and marked."""

from __future__ import annotations

import base64
import io
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from verisight.data.files import read_json, read_jsonl
from verisight.data.images import ImageError, load_image, resolve_image
from verisight.data.readers import open_data
from verisight.study.marks import Piece, changed_words, named_objects, num_words_apart
from verisight.study.tables import Arm
from verisight.types import ImageRef, Pair

SHOWN_SIZE = 144  # pixels: smaller pictures are shown enlarged, the shorter side at least this long
LARGE_SIZE = 400  # pixels: no side is shown longer than this
_CHANGED_SHARE = 4  # one answer in this many is shown because it changed most


@dataclass(frozen=True, slots=True)
class Picture:
    """An embedded picture as it is shown, or why there is none. Sizes in CSS pixels."""

    alt: str
    uri: str = ""
    width: int = 0
    height: int = 0
    pixelated: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PairCard:
    """One training pair; differing words of both answers are marked."""

    uid: str
    pictures: tuple[Picture, ...]
    question: str
    chosen: tuple[Piece, ...]
    rejected: tuple[tuple[Piece, ...], ...]
    badges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """Pairs whose rejected answer was taken in this round; `similarity` is the median to the chosen answer."""

    round: int
    guided: bool
    num: int
    fraction: float
    similarity: float | None


@dataclass(frozen=True, slots=True)
class PairGallery:
    """The pairs of one arm: how many, from where, in which round they were resolved, and a random sample."""

    arm: str
    file: str
    num: int
    num_bad: int
    origins: tuple[tuple[str, int], ...]
    rounds: tuple[Resolved, ...]
    licenses: tuple[str, ...]
    cards: tuple[PairCard, ...]


@dataclass(frozen=True, slots=True)
class Marked:
    """One arm's answer with its objects marked, and how many of the mentions are made up."""

    arm: str
    pieces: tuple[Piece, ...]
    num_made_up: int
    num_mentions: int


@dataclass(frozen=True, slots=True)
class AnswerCard:
    """One test picture, what is in it, and every arm's answer, base first."""

    uid: str
    picture: Picture
    question: str
    objects: tuple[str, ...]
    answers: tuple[Marked, ...]


@dataclass(frozen=True, slots=True)
class AnswerGallery:
    """Answers to the same test pictures: a random sample, and those that changed most (not typical)."""

    files: tuple[str, ...]
    num: int
    sample: tuple[AnswerCard, ...]
    changed: tuple[AnswerCard, ...]
    rendered: bool  # the pictures are rendered scenes, whose icons have a licence


def collect_pairs(arm: Arm, *, num: int, seed: int) -> PairGallery | None:
    """Counts over all pairs of the arm's pairs.parquet and `num` random ones; None without such a file."""
    path = arm.folder / "pairs.parquet"
    if not path.exists():
        return None
    rng = random.Random(seed)
    kept: list[tuple[int, Pair]] = []  # a reservoir: every pair is in it with the same probability
    origins: dict[str, int] = {}
    rounds: dict[tuple[int, bool], list[float | None]] = {}
    licenses: dict[str, None] = {}
    reading = open_data(path, kind="pairs", check_images=False)
    num_pairs = num_bad = 0
    for outcome in reading:
        num_bad += len(outcome.bad)
        if not outcome.pairs:
            continue
        (entry,) = outcome.pairs
        num_pairs += 1
        origins[entry.origin] = origins.get(entry.origin, 0) + 1
        if "license" in entry.notes:
            licenses[str(entry.notes["license"])] = None
        if isinstance(entry.notes.get("round"), int):
            key = (entry.notes["round"], bool(entry.notes.get("guided", True)))
            rounds.setdefault(key, []).append(entry.notes.get("similarity"))
        at = num_pairs - 1 if len(kept) < num else rng.randrange(num_pairs)
        if at < num:
            kept[at : at + 1] = [(num_pairs, entry)]
    total = sum(map(len, rounds.values()))
    resolved = tuple(_resolved(*key, rounds[key], total=total) for key in sorted(rounds))
    cards = tuple(_pair_card(pair) for _, pair in sorted(kept, key=lambda entry: entry[0]))
    return PairGallery(
        arm.label, str(path), num_pairs, num_bad, tuple(origins.items()), resolved, tuple(licenses), cards
    )


def collect_answers(arms: Sequence[Arm], *, images: Path | None, num: int, seed: int) -> AnswerGallery | None:
    """`num` test pictures with every arm's answer; None if the base has no scored ones.

    Three quarters are a random sample; the rest are those of the others where the arms' answers differ from the
    base's in most words. `images` is searched for the pictures first, then the path they had when asked.
    """
    scored = (arm for arm in arms if "chair" in read_json(arm.folder / "evaluate" / "summary.json"))
    held = {arm.label: arm.folder / "evaluate" / "chair.jsonl" for arm in scored}
    base = arms[0].label
    if base not in held:
        return None
    rows = {label: {row["uid"]: row for row in read_jsonl(path)} for label, path in held.items()}
    uids = [uid for uid in rows[base] if all(uid in answers for answers in rows.values())]
    others = [answers for label, answers in rows.items() if label != base]
    apart = {
        uid: sum(num_words_apart(rows[base][uid]["answer"], answers[uid]["answer"]) for answers in others)
        for uid in uids
    }
    num_changed = num // _CHANGED_SHARE
    drawn = sorted(random.Random(seed).sample(range(len(uids)), min(num - num_changed, len(uids))))
    sample = [uids[at] for at in drawn]
    rest = [uid for uid in uids if apart[uid] and uid not in sample]
    changed = sorted(rest, key=lambda uid: -apart[uid])[:num_changed]

    def card(uid: str) -> AnswerCard:
        return _answer_card({label: answers[uid] for label, answers in rows.items()}, base=base, images=images)

    return AnswerGallery(
        tuple(map(str, held.values())),
        len(uids),
        tuple(map(card, sample)),
        tuple(map(card, changed)),
        any("scene" in row["truth"] for row in rows[base].values()),
    )


def embed(ref: ImageRef, *, alt: str) -> Picture:
    """The picture as a data URI without its metadata; a picture that can't be read becomes a note."""
    try:
        image = load_image(ref)
    except ImageError as error:
        return Picture(alt, problem=error.reason)
    buffer = io.BytesIO()
    factor = min(math.ceil(SHOWN_SIZE / min(image.size)), LARGE_SIZE // max(image.size))
    if factor > 1:
        kind = "png"
        image.save(buffer, format="PNG", optimize=True)
    else:
        kind, factor = "jpeg", 1
        image.thumbnail((LARGE_SIZE, LARGE_SIZE), Image.Resampling.LANCZOS)
        image.save(buffer, format="JPEG", quality=85)
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(alt, uri, image.width * factor, image.height * factor, pixelated=factor > 1)


def _resolved(round_: int, guided: bool, similarities: Sequence[float | None], *, total: int) -> Resolved:
    known = [value for value in similarities if value is not None]
    median = statistics.median(known) if known else None
    return Resolved(round_, guided, len(similarities), len(similarities) / total, median)


def _pair_card(pair: Pair) -> PairCard:
    texts = [answer.text for answer in pair.rejected]
    notes = pair.notes
    badges = [f"round {notes['round']}"] if "round" in notes else []
    if "guided" in notes:
        badges.append("guided" if notes["guided"] else "free")
    if isinstance(notes.get("similarity"), int | float):
        badges.append(f"similarity {notes['similarity']:.2f}")
    return PairCard(
        pair.prompt.uid,
        tuple(embed(ref, alt=f"Picture of pair {pair.prompt.uid}") for ref in pair.prompt.images),
        pair.prompt.text,
        changed_words(pair.chosen.text, texts[0]) if texts else (Piece(pair.chosen.text),),
        tuple(changed_words(text, pair.chosen.text) for text in texts),
        (pair.origin, *badges),
    )


def _answer_card(rows: dict[str, dict[str, Any]], *, base: str, images: Path | None) -> AnswerCard:
    asked = rows[base]
    objects = tuple(asked["truth"]["objects"])
    name = Path(asked["image"]).name if asked["image"] else ""
    alt = f"Test picture {name}, which holds: {', '.join(objects) or 'no counted object'}"
    found = resolve_image(images, name) if images and name else None
    path = found or (Path(asked["image"]) if name else None)
    return AnswerCard(
        asked["uid"],
        embed(ImageRef(path=path), alt=alt) if path else Picture(alt, problem="image missing"),
        asked["question"],
        objects,
        tuple(
            Marked(label, named_objects(row["answer"], row["mentions"]), row["num_hallucinated"], row["num_mentions"])
            for label, row in rows.items()
        ),
    )
