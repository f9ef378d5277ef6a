"""Asking a judge about answers: k votes, every reply kept as it comes, nothing asked twice, the price told before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verisight.chat.endpoint import Prices
from verisight.chat.pictures import content_hash
from verisight.data.files import append_jsonl, read_jsonl
from verisight.types import Chat, Decoding, Request

Row = dict[str, Any]
Ask = Callable[[Row], Mapping[str, Request]]  # by the column that its replies go to

TOKEN_CHARACTERS = 4  # of English text, about
PICTURE_TOKENS = 1100  # about what a server counts for a picture of a megapixel


class Estimate(NamedTuple):
    """What asking will take: questions not answered yet, tokens in (about), tokens out (at most), price (at most)."""

    num_requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


class Question(NamedTuple):
    """One vote on one row: where its reply goes and what names it. `key`: hex SHA-256 of who is asked what."""

    uid: str
    column: str
    vote: int
    key: str
    request: Request


def questions(rows: Sequence[Row], ask: Ask, *, judge: str, votes: int) -> list[Question]:
    """Every vote of every row, in order. `judge` names the model and its settings: another judge is asked anew."""
    found = []
    for row in rows:
        for column, request in ask(row).items():
            told = [judge, request.system, request.text, [content_hash(image) for image in request.images]]
            key = hashlib.sha256(json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
            for vote in range(votes):
                uid = f"{row['uid']}/{column}/{vote}"
                asked = Request(uid, request.text, request.images, request.system)
                found.append(Question(row["uid"], column, vote, key, asked))
    return found


def waiting(asked: Sequence[Question], file: Path) -> list[Question]:
    """The questions whose reply isn't in `file` yet; those that failed are asked again."""
    known = _known(file)
    return [one for one in asked if (one.key, one.uid, one.column, one.vote) not in known]


def estimate(asked: Sequence[Question], decoding: Decoding, prices: Prices | None) -> Estimate:
    """What these questions will take: tokens guessed from characters and pictures, replies counted at their limit."""
    characters = sum(len(one.request.text) + len(one.request.system) for one in asked)
    pictures = sum(len(one.request.images) for one in asked)
    tokens = characters // TOKEN_CHARACTERS + pictures * PICTURE_TOKENS
    out = len(asked) * decoding.max_new_tokens
    return Estimate(len(asked), tokens, out, None if prices is None else prices.of(tokens, out))


def collect(
    rows: Sequence[Row], asked: Sequence[Question], chat: Chat | None, *, file: Path, batch_size: int = 64,
    advance: Callable[[int], object] | None = None,
) -> list[Row]:  # fmt: skip
    """The rows with their replies: for each column a list of one text a vote, None where the judge gave none.

    Replies are appended to `file` batch by batch (uid, column, vote, key, reply, problem, judge), so that a killed
    run goes on where it was. `chat` may be None where nothing is left to ask.
    """
    left = waiting(asked, file)
    for start in range(0, len(left), batch_size):
        assert chat is not None, "somebody has to answer"
        batch = left[start : start + batch_size]
        replies = chat.ask([one.request for one in batch])
        for one, reply in zip(batch, replies, strict=True):
            told = {"uid": one.uid, "column": one.column, "vote": one.vote, "key": one.key}
            said = {"reply": None if reply.problem else reply.text, "problem": reply.problem, "judge": chat.name}
            append_jsonl(file, told | said)
        if advance is not None:
            advance(len(batch))
    return _with_replies(rows, asked, file)


def _with_replies(rows: Sequence[Row], asked: Sequence[Question], file: Path) -> list[Row]:
    """The rows with the replies that `file` holds; a question without one counts as failed."""
    known = _known(file)
    columns: dict[str, dict[str, list[str | None]]] = {}
    for one in asked:
        reply = known.get((one.key, one.uid, one.column, one.vote))
        columns.setdefault(one.uid, {}).setdefault(one.column, []).append(reply)
    return [row | columns.get(row["uid"], {}) for row in rows]


def _known(file: Path) -> dict[tuple[str, str, str, int], str]:
    rows = read_jsonl(file) if file.exists() else []
    return {
        (row["key"], row["uid"], row["column"], row["vote"]): row["reply"] for row in rows if row["reply"] is not None
    }
