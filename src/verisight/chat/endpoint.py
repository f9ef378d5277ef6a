"""What is asked over HTTP, and how hard: addresses, keys, prices, limits. Checked before anything is sent."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from verisight.types import UserError

_DATED = r"[-@:](?:\d[\d.-]*|latest)"  # what servers add to the name of a model: a date, a version


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server and the model asked there.

    `base_url` is what comes before /chat/completions. `key_env` names the environment variable that holds the key
    (None: the server wants none); the key itself is kept nowhere else. `timeout` in seconds: to connect, and between
    two pieces of an answer. `served_as` are further names under which the server may answer. `tokens_field` is what
    the server calls the bound on new tokens.
    """

    base_url: str
    model: str
    key_env: str | None = None
    timeout: float = 120.0
    served_as: tuple[str, ...] = ()
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            parts.port  # noqa: B018  a port that is no number raises here
        except ValueError as error:
            raise UserError(f"base_url: not an address ({error}); accepted: http(s)://host[:port]/path") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"base_url: found {parts.scheme or 'no'} scheme; accepted: http(s)://host[:port]/path")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UserError(
                "base_url: holds a user, password, query or fragment; accepted: http(s)://host[:port]/path, the key in "
                "the environment variable that key_env names"
            )
        if not self.model.strip():
            raise UserError("model: found an empty name; accepted: the model's name on the server")
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise UserError(f"timeout: found {self.timeout}; accepted: seconds above 0")

    @property
    def host(self) -> str:
        """Where it is, for messages."""
        return urlsplit(self.base_url).netloc

    def key(self) -> str:
        """The key, "" where none is wanted.

        Raises:
            UserError: the variable is not set, empty, or holds what no header can.
        """
        if self.key_env is None:
            return ""
        conventional = re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", self.key_env)
        named = f"environment variable {self.key_env}" if conventional else "the environment variable it names"
        found = os.environ.get(self.key_env, "").strip()
        if not found:
            raise UserError(f"key_env: {named} is not set; accepted: the name of a variable that holds the key")
        if not (found.isascii() and found.isprintable()) or " " in found:
            raise UserError(f"key_env: {named} holds blanks or characters that no key has; accepted: one key")
        return found

    def is_asked(self, model: str) -> bool:
        """Whether an answer of `model` is one of the model asked for: that name, or it with a date or version behind.

        "m-2024-08-06", "m:1.5" and "m-latest" are m; "m-mini" is not. Case does not count.
        """
        found = model.casefold()
        known = [name.casefold() for name in (self.model, *self.served_as)]
        return any(found == name or re.fullmatch(re.escape(name) + _DATED, found) for name in known)


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard a server is asked.

    `retries`: attempts after the first. `concurrency`: requests in flight. `requests_per_minute`: at most, attempts
    count (None: no limit). `max_wait`: seconds of the longest wait before an attempt; a server that asks for more is
    not asked again.
    """

    retries: int = 5
    concurrency: int = 4
    requests_per_minute: float | None = None
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise UserError(f"retries: found {self.retries}; accepted: 0 or more")
        if self.concurrency < 1:
            raise UserError(f"concurrency: found {self.concurrency}; accepted: 1 or more")
        if self.requests_per_minute is not None and not self.requests_per_minute > 0:
            raise UserError(f"requests_per_minute: found {self.requests_per_minute}; accepted: above 0")
        if not (math.isfinite(self.max_wait) and self.max_wait > 0):
            raise UserError(f"max_wait: found {self.max_wait}; accepted: seconds above 0")


@dataclass(frozen=True, slots=True)
class Prices:
    """Price of a million tokens, in any currency."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if not (self.prompt >= 0 and self.completion >= 0):
            raise UserError(f"prices: found {self.prompt} and {self.completion}; accepted: 0 or more a million tokens")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What that many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6
