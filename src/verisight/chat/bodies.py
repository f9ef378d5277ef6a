"""Bodies of /chat/completions: what is asked, and what came back, taken apart without trusting it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from verisight.chat.endpoint import Endpoint
from verisight.chat.pictures import content_hash, data_url
from verisight.data.texts import shorten
from verisight.types import Decoding, Request, UserError


class BadBody(Exception):
    """An answer that holds no answer."""


class Said(NamedTuple):
    """An answer: its text, or why it has none; which model; tokens as the server counts them (None: it does not)."""

    text: str
    problem: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None


def question(request: Request, endpoint: Endpoint, decoding: Decoding) -> dict[str, Any]:
    """The arguments of the request, pictures inside.

    Raises:
        ImageError: a picture cannot be used.
    """
    return _settings(endpoint, decoding) | {"messages": _messages(request, [data_url(ref) for ref in request.images])}


def key(request: Request, endpoint: Endpoint, decoding: Decoding) -> str:
    """Names a question: hex SHA-256 of address, model, settings, words and the pictures' bytes.

    Answers that are drawn (temperature above 0) belong to the request's uid too: the same question under another uid
    is another draw.

    Raises:
        UserError: a text that is not UTF-8, or an ImageError for a picture that cannot be read.
    """
    told: list[Any] = [endpoint.base_url, _settings(endpoint, decoding), request.uid if decoding.temperature else ""]
    told.append(_messages(request, [content_hash(ref) for ref in request.images]))
    try:
        return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    except UnicodeEncodeError as error:
        found = shorten(str(error.object)[error.start :])
        raise UserError(f"request {request.uid}: {found} is not UTF-8; accepted: text") from None


def answer(body: str) -> Said:
    """Read a server's answer.

    Raises:
        BadBody: not JSON, not an answer, or one without choice or text.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadBody(f"no JSON: {shorten(body)}") from None
    if not isinstance(found, dict):
        raise BadBody(f"JSON of type {type(found).__name__}: {shorten(body)}")
    choices = found.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        raise BadBody(f"no choice in the answer: {shorten(body)}")
    usage = found.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    text, problem = _text(message.get("content")), ""
    if refusal := _text(message.get("refusal")):
        text, problem = "", f"refused: {refusal}"
    elif first.get("finish_reason") == "content_filter":
        text, problem = "", "stopped by the server's content filter"
    elif not text and first.get("finish_reason") == "length":
        problem = "the token budget ended before any text; raise max_new_tokens"
    elif not text:
        raise BadBody("an answer without text")
    model = found.get("model")
    counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    return Said(text, problem, model if isinstance(model, str) else "", *counts)


def _settings(endpoint: Endpoint, decoding: Decoding) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model": endpoint.model,
        "temperature": decoding.temperature,
        endpoint.tokens_field: decoding.max_new_tokens,
    }
    if decoding.top_p != 1.0:
        settings["top_p"] = decoding.top_p
    if decoding.stop:
        settings["stop"] = list(decoding.stop)
    return settings


def _messages(request: Request, pictures: list[str]) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": request.system}] if request.system else []
    if not pictures:
        return [*system, {"role": "user", "content": request.text}]
    shown: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": one}} for one in pictures]
    return [*system, {"role": "user", "content": [*shown, {"type": "text", "text": request.text}]}]


def _text(content: Any) -> str:
    """Text of a message, which some servers send in parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content.strip() if isinstance(content, str) else ""


def _count(found: Any) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
