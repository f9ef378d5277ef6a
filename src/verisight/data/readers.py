"""One function per public data set: its files in, pairs and unusable rows out. Nothing is dropped unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from verisight.data.files import read_json, write_jsonl
from verisight.data.images import ImageChecker, ImageError, resolve_image
from verisight.types import Answer, BadRow, ImageRef, Message, Pair, Prompt, UserError

PLACEHOLDER = "<image>"
_SHAPE = "an object {id, image, conversations: [{from, value}, ...]} is accepted"


@dataclass(frozen=True, slots=True)
class Read:
    """What a file gave: usable pairs, unusable rows, and how many rows it had (pairs + bad rows)."""

    pairs: list[Pair]
    bad: list[BadRow]
    num_rows: int


class Unusable(ValueError):
    """A row cannot be used; becomes a `BadRow` with `reason` (to count by) and `detail`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_llava_instruct(
    path: Path,
    *,
    image_root: Path,
    check_images: bool = True,
    text_only: bool = False,
    license: str = "",
    limit: int | None = None,
) -> Read:
    """LLaVA-Instruct JSON (Liu et al. 2023, llava_instruct_150k and kin) as supervised pairs, one per row.

    The placeholder is taken out of the human turns wherever it stands. Of a row with several turns the first
    answer is `chosen`, the rest its `follow_up`. `text_only` accepts rows without a picture, as in
    llava_v1_5_mix665k. `check_images` decodes every picture once; without it the files only have to exist.
    `license` goes to `notes`; `limit` reads the first rows only. Unusable rows are returned, not raised.

    Raises:
        UserError: not JSON, not a list of objects of that shape, or `image_root` is no folder.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: found a JSON {type(rows).__name__}, a list is accepted, each row {_SHAPE}")
    if not image_root.is_dir():
        raise UserError(f"{path}: image_root {image_root} is not a folder")
    find = _image_finder(image_root, decode=check_images)
    notes = {"license": license} if license else {}
    pairs: list[Pair] = []
    bad: list[BadRow] = []
    for index, row in enumerate(rows[:limit]):
        _check_shape(row, where=f"{path}: row {index}")
        try:
            prompt, chosen = _llava_row(row, find=find, text_only=text_only)
        except (Unusable, ImageError) as error:
            bad.append(BadRow(str(path), index, error.reason, error.detail))
            continue
        uid = f"{index}:{row['id']}"
        prompt = replace(prompt, uid=uid, split_group=prompt.split_group or uid, provenance=f"{path.name}#{index}")
        pairs.append(Pair(prompt, chosen, origin="llava_instruct", notes=dict(notes)))
    return Read(pairs, bad, len(pairs) + len(bad))


def enforce_bad_fraction(bad: Sequence[BadRow], *, num_rows: int, max_bad_fraction: float, log: Path | None) -> None:
    """Write the unusable rows to `log` (JSON lines) if there are any, and stop when there are too many.

    `max_bad_fraction` is a share of `num_rows`, 0..1. No usable row at all is always too many.

    Raises:
        UserError: with the counts by reason and the first three rows.
    """
    if bad and log is not None:
        write_jsonl(log, (asdict(row) for row in bad))
    if num_rows > len(bad) and len(bad) <= max_bad_fraction * num_rows:
        return
    if num_rows == 0:
        raise UserError("no rows: the data holds nothing to train on")
    counts = ", ".join(f"{reason}: {num}" for reason, num in Counter(row.reason for row in bad).most_common())
    first = "".join(f"\n  {row.file}: row {row.row}: {row.reason}: {row.detail}" for row in bad[:3])
    listed = f"\nAll of them are in {log}." if log is not None else ""
    raise UserError(
        f"{len(bad)} of {num_rows} rows ({len(bad) / num_rows:.1%}) cannot be used, max_bad_fraction accepts "
        f"{max_bad_fraction:.1%} and at least one usable row. {counts}. First:{first}{listed}"
    )


def split_turns(pair: Pair) -> list[Pair]:
    """A supervised row of several turns as one pair per answer, the turns before it as history.

    A row of one turn comes back as it is; else `/0`, `/1`, ... is added to the uid.
    """
    if not pair.chosen.follow_up:
        return [pair]
    assert not pair.rejected, "rejected answers belong to one turn, follow_up to several"
    prompt = pair.prompt
    turns = (Message("user", prompt.text), Message("assistant", pair.chosen.text), *pair.chosen.follow_up)
    return [
        replace(
            pair,
            prompt=replace(
                prompt,
                uid=f"{prompt.uid}/{number}",
                text=turns[start].text,
                history=(*prompt.history, *turns[:start]),
            ),
            chosen=Answer(turns[start + 1].text),
        )
        for number, start in enumerate(range(0, len(turns), 2))
    ]


def check_order(roles: Sequence[str], *, first: str, second: str) -> None:
    """Turns go first, second, first, second, ... and end with `second`; else raises Unusable."""
    if not roles or len(roles) % 2 or list(roles) != [first, second] * (len(roles) // 2):
        found = ", ".join(map(repr, roles[:6])) or "no turn"
        raise Unusable("turns out of order", f"found {found}; {first}, {second}, ... is accepted")


def check_unicode(*texts: str) -> None:
    """Text that UTF-8 can hold (JSON can smuggle half a surrogate pair in); else raises Unusable."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Unusable("invalid Unicode", f"character {error.start} of {shorten(text)}") from error


def shorten(text: str) -> str:
    """The start of a text as Python would write it, for messages."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _check_shape(row: Any, *, where: str) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{where}: found a JSON {type(row).__name__}, {_SHAPE}")
    if not isinstance(row.get("id"), int | str):
        raise UserError(f"{where}: id is {shorten(str(row.get('id')))}, a string or integer is accepted")
    if not isinstance(row.get("image"), str | None):
        raise UserError(f"{where}: image is a JSON {type(row['image']).__name__}, one file name is accepted")
    turns = row.get("conversations")
    if not isinstance(turns, list):
        raise UserError(f"{where}: conversations is a JSON {type(turns).__name__}, {_SHAPE}")
    for turn in turns:
        if not (isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str)):
            raise UserError(f"{where}: conversations holds {shorten(str(turn))}, {_SHAPE}")


def _llava_row(row: dict[str, Any], *, find: Callable[[str], ImageRef], text_only: bool) -> tuple[Prompt, Answer]:
    """Prompt (uid and provenance still empty) and answer of a row of the right shape; raises Unusable."""
    turns = row["conversations"]
    check_order([turn["from"] for turn in turns], first="human", second="gpt")
    name = row.get("image") or ""
    check_unicode(str(row["id"]), name, *(turn["value"] for turn in turns))
    for answer in (turn["value"] for turn in turns[1::2]):
        if PLACEHOLDER in answer:
            raise Unusable("<image> in an answer", shorten(answer))
        if not answer.strip():
            raise Unusable("empty answer", f"id {row['id']}: {shorten(answer)}")
    questions = [turn["value"] for turn in turns[::2]]
    if name:
        _check_placeholder(questions[0])
    elif not text_only or any(PLACEHOLDER in question for question in questions):
        raise Unusable("no image", f"id {row['id']} names no image: {shorten(questions[0])}")
    messages = []
    for turn in turns:
        if turn["from"] == "gpt":
            messages.append(Message("assistant", turn["value"]))
            continue
        text = turn["value"].replace(PLACEHOLDER, "").strip()
        if not text:
            raise Unusable("empty question", f"id {row['id']}: {shorten(turn['value'])}")
        messages.append(Message("user", text))
    images = (find(name),) if name else ()
    prompt = Prompt("", images, messages[0].text, split_group=Path(name).name)
    return prompt, Answer(messages[1].text, tuple(messages[2:]))


def _check_placeholder(question: str) -> None:
    num = question.count(PLACEHOLDER)
    if num == 0:
        raise Unusable("no <image> placeholder", f"first turn is {shorten(question)}, one <image> is accepted")
    if num > 1:
        raise Unusable("several <image> placeholders", f"{num} in {shorten(question)}, one is accepted")


def _image_finder(root: Path, *, decode: bool) -> Callable[[str], ImageRef]:
    check = ImageChecker(decode=decode)
    resolve = cache(partial(resolve_image, root))

    def find(name: str) -> ImageRef:
        try:
            found = resolve(name)
        except UserError as error:
            raise Unusable("image outside root", str(error)) from error
        if found is None:
            raise ImageError("image missing", f"{name!r} is not below {root}")
        ref = ImageRef(path=found)
        check(ref)
        return ref

    return find
