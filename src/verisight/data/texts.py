"""Texts of turns as every reader takes them: placeholders out, nothing blank, no marks that tokenizers would obey."""

from __future__ import annotations

import re
from collections.abc import Sequence

from verisight.data.rows import Unusable
from verisight.types import Message

PLACEHOLDER = "<image>"
EQUAL = "chosen equals rejected"
# Marks that tokenizers turn into control tokens. In a text they would end a turn or open a picture that is not there.
# Each alternative begins with a plain "<" or "[", so that a text without them is skipped at once.
_SPECIAL = re.compile(
    r"</?s>|<\|[\w-]+\|>|<(?:pad|unk|bos|eos|video|image_soft_token|IMG_CONTEXT|fake_token_around_image"
    r"|end_of_utterance|start_of_turn|end_of_turn|ImageHere)>|<img>[^<]*</img>|</?im_(?:start|end)>"
    r"|<image[ _-]\w+>|<(?i:image)>|\[(?i:IMG)\]|\[/?INST\]"
)


def clean(turn: Message) -> Message:
    """The turn without image placeholders; raises Unusable for an empty one, or marks that are no text."""
    if turn.role == "assistant":
        return Message("assistant", answer(turn.text))
    text = turn.text.replace(PLACEHOLDER, "").strip()
    if not text:
        raise Unusable("empty question", shorten(turn.text))
    check_text(text)
    return Message("user", text)


def answer(text: str | None, which: str = "answer") -> str:
    """An answer's text as it is; raises Unusable for a blank one, or marks that are no text."""
    if text is None or not text.strip():
        raise Unusable(f"empty {which}", shorten(text or ""))
    if PLACEHOLDER in text:
        raise Unusable("<image> in an answer", shorten(text))
    check_text(text)
    return text


def place(text: str) -> str:
    """Where the image placeholder stands in a text: start, end, inside, or none."""
    if PLACEHOLDER not in text:
        return "none"
    text = text.strip()
    if text.startswith(PLACEHOLDER):
        return "start"
    return "end" if text.endswith(PLACEHOLDER) else "inside"


def check_roles(roles: Sequence[str]) -> None:
    """Turns go user, assistant, user, ... and end with the assistant's; else raises Unusable."""
    if not roles or len(roles) % 2 or list(roles) != ["user", "assistant"] * (len(roles) // 2):
        found = ", ".join(map(repr, roles[:6])) or "no turn"
        raise Unusable("turns out of order", f"found {found}; user, assistant, ... is accepted")


def check_text(text: str) -> None:
    """Text that UTF-8 can hold, without marks that a tokenizer takes for control tokens; else raises Unusable."""
    check_unicode(text)
    if found := _SPECIAL.search(text):
        raise Unusable(
            "special token in a text", f"{shorten(found[0])} in {shorten(text[max(0, found.start() - 20) :])}"
        )


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
