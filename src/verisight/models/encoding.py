"""Prompts and answers as token ids: one rendering through the chat template, split at exact character offsets."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verisight.data.images import image_hash, load_image
from verisight.types import Answer, ImageRef, Message, Prompt, UserError


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as ids, image placeholders expanded, and what the processor says of its pictures (pixels included)."""

    ids: tuple[int, ...]
    fields: dict[str, Tensor]
    num_image_tokens: int


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """Token ids that follow a prompt. `supervised` is true where the token is the answer's (end token included)."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]


class Encoder:
    """Turns prompts and answers into ids with a Hugging Face processor (chat template and fast tokenizer needed)."""

    def __init__(self, processor: Any) -> None:
        if not getattr(processor, "chat_template", None):
            raise UserError("the model folder's processor has no chat template; accepted: one with chat_template.jinja")
        if not processor.tokenizer.is_fast:
            raise UserError("the model folder has a slow tokenizer; accepted: a fast one (tokenizer.json)")
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_token_id: int = processor.image_token_id
        self.eos_id: int = self.tokenizer.eos_token_id
        self._hashes: dict[tuple[Path, str | None, int, int], str] = {}
        shown = self._render(Prompt("", (ImageRef(data=b""),), "?"), (), generate=True)
        if self.tokenizer.convert_ids_to_tokens(self.image_token_id) not in shown:
            raise UserError(
                f"the model folder's chat template shows no picture ({shown[-60:]!r}); accepted: one that puts "
                f"{self.tokenizer.convert_ids_to_tokens(self.image_token_id)!r} where a message holds an image"
            )

    def prompt(self, prompt: Prompt) -> EncodedPrompt:
        """Encode the prompt, decoding its pictures. The generation prompt of the chat template is included."""
        text = self._render(prompt, (), generate=True)
        images = [load_image(ref) for ref in prompt.images]
        fields = self.processor(
            images=images or None, text=text, return_tensors="pt", add_special_tokens=self._adds_special(text)
        )
        ids = tuple(fields.pop("input_ids")[0].tolist())
        return EncodedPrompt(ids, dict(fields), ids.count(self.image_token_id))

    def key(self, prompt: Prompt) -> str:
        """Names what `prompt` gives: hex SHA-256 of the rendered text and of the pictures' bytes, never their names.

        Placeholders look the same whatever the picture is, so ids alone would not tell two prompts apart.
        """
        parts = [self._render(prompt, (), generate=True), *(self._hash(ref) for ref in prompt.images)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def answer(self, prompt: Prompt, answer: Answer) -> EncodedAnswer:
        """Encode what follows the prompt: the answer, its end token, and any further turns.

        Tokens are those of the whole conversation tokenised at once, cut at the prompt's last character; of a drawn
        answer, those that were drawn.
        """
        if answer.token_ids is not None:
            return EncodedAnswer(answer.token_ids, (True,) * len(answer.token_ids))
        text, spans = self._told(prompt, (Message("assistant", answer.text), *answer.follow_up))
        ids, supervised = [], []
        for token, left, right in self._tokens_behind(text, spans[0][0], prompt):
            if left < spans[-1][1]:
                ids.append(token)
                supervised.append(any(a <= left and right <= b for a, b in spans))
        if not ids or ids[-1] not in self.end_ids:  # LLaVA-1.5's template closes answers with a blank instead
            ids.append(self.eos_id)
            supervised.append(True)
        return EncodedAnswer(tuple(ids), tuple(supervised))

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's end token, and the special token the template closes a turn with."""
        closed = self._render(Prompt("", (), "?"), (Message("assistant", "?"),), generate=False).rstrip()
        last = self.tokenizer(closed, add_special_tokens=False)["input_ids"][-1]
        return frozenset({self.eos_id, *({last} & self.special_ids)})

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that are no text: image placeholders, turn marks, padding, the end token."""
        added = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset({*self.tokenizer.all_special_ids, self.image_token_id, *added})

    def text_tokens(self, prompt: Prompt, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """An answer's token ids as they stand behind the prompt, without end token, and their spans in `text`.

        A blank that the template puts before the answer belongs to the first token.
        """
        told, [(opened, _)] = self._told(prompt, (Message("assistant", text),))
        start = told.find(text, opened)
        if start < 0:
            raise UserError(f"chat template: it rewrites the answer {text[:40]!r}; accepted: templates that keep it")
        tokens = [token for token in self._tokens_behind(told, opened, prompt) if token[1] < start + len(text)]
        spans = [(max(0, left - start), max(0, right - start)) for _, left, right in tokens]
        return [token for token, _, _ in tokens], spans

    def text(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def decode(self, ids: Sequence[int]) -> str:
        """The same, blanks at both ends removed."""
        return self.text(ids).strip()

    def ids_containing(self, characters: str) -> frozenset[int]:
        """Vocabulary ids whose text holds one of the characters."""
        texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        return frozenset(i for i, text in enumerate(texts) if any(c in text for c in characters))

    def _told(self, prompt: Prompt, turns: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The whole conversation, and where in it each assistant turn of `turns` stands, closing mark included.

        Templates that open a finished turn with other blanks than their generation prompt (LLaVA-OneVision's) are
        followed in the latter: an answer is scored behind what it will be drawn from.
        """
        text, spans, rendered = "", [], ""
        for index, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            opened = self._render(prompt, turns[:index], generate=True)
            closed = self._render(prompt, turns[: index + 1], generate=False)
            at = _behind(opened, closed)
            if at is None or not opened.startswith(rendered):
                raise UserError(
                    f"chat template: an answer's rendering does not continue its prompt ({opened[-40:]!r} -> "
                    f"{closed[-40:]!r}); accepted: templates whose prompt is a prefix of the conversation"
                )
            text += opened[len(rendered) :]
            spans.append((len(text), len(text) + len(closed[at:].rstrip())))
            text, rendered = text + closed[at:], closed
        return text, spans

    def _tokens_behind(self, text: str, start: int, prompt: Prompt) -> list[tuple[int, int, int]]:
        """(id, left, right) of every token of `text` from character `start` on; characters count from its beginning."""
        encoded = self.tokenizer(text, add_special_tokens=self._adds_special(text), return_offsets_mapping=True)
        tokens = []
        for token, (left, right) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if left < start < right:
                raise UserError(f"tokenizer: {text[left:right]!r} straddles the end of the prompt of row {prompt.uid}")
            if start <= left < right:
                tokens.append((token, left, right))
        return tokens

    def _hash(self, ref: ImageRef) -> str:
        """A picture's hash; that of a file once, as long as its size and date stay."""
        if ref.path is None:
            return image_hash(ref)
        try:
            stat = os.stat(ref.path)
        except OSError:
            return image_hash(ref)  # which says what is missing
        known = (ref.path, ref.member, stat.st_size, stat.st_mtime_ns)
        if known not in self._hashes:
            self._hashes[known] = image_hash(replace(ref, sha256=None))  # what a data set says of it may be old
        return self._hashes[known]

    def _adds_special(self, text: str) -> bool:
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def _render(self, prompt: Prompt, turns: Sequence[Message], *, generate: bool) -> str:
        messages: list[dict[str, Any]] = []
        for index, turn in enumerate((*prompt.history, Message("user", prompt.text), *turns)):
            content: list[dict[str, str]] = [{"type": "text", "text": turn.text}]
            if index == 0:
                content = [{"type": "image"}] * len(prompt.images) + content
            messages.append({"role": turn.role, "content": content})
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=generate, tokenize=False))


def _behind(opened: str, closed: str) -> int | None:
    """Where `closed` goes on behind `opened`, blanks at the end of `opened` forgiven; None if it does not."""
    if closed.startswith(opened):
        return len(opened)
    bare = opened.rstrip()
    blanks = re.compile(r"\s*").match(closed, len(bare))
    return blanks.end() if closed.startswith(bare) and blanks else None


def pad(rows: Sequence[Sequence[int]], *, value: int) -> Tensor:
    """Rows of unequal length as one (rows, longest) int64 tensor, filled up on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
