"""The nouns of the package: prompts, answers, pairs and the protocols that move them. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

Drawn = TypeVar("Drawn", covariant=True)


class UserError(ValueError):
    """What a user wrote cannot be used. The message names the file, row or key, what was found and what is accepted."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where a picture is. Decoded late, always to RGB (see `verisight.data.images`).

    Exactly one of `path` and `data` is set; with `member` the picture is that entry of the zip archive at `path`.
    `sha256` is the hash of the encoded picture once somebody read it. `one_use`: made (spoiled) for one use,
    so that nothing about it is worth keeping.
    """

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    member: str | None = None
    sha256: str | None = None
    one_use: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        assert (self.path is None) != (self.data is None), "an ImageRef holds a path or bytes, not both"
        assert self.member is None or self.path is not None, "a member belongs to an archive"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. The text carries no image placeholder."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked: pictures (none for text-only rows), earlier turns, and the question.

    `split_group` is what a split must not tear apart (an image id); `provenance` says where the row came from.
    The processor's chat template puts the image placeholder in; texts never hold one.
    """

    uid: str
    images: tuple[ImageRef, ...]
    text: str
    history: tuple[Message, ...] = ()
    split_group: str = ""
    provenance: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a prompt.

    `follow_up` continues the conversation (user, assistant, user, ...): every assistant turn in it is an answer
    too, so that a multi-turn row is supervised in one pass. Preference answers leave it empty. `token_ids`: the tokens
    that were drawn, the end token included if it was; they are scored as they are, the text is not read then.
    """

    text: str
    follow_up: tuple[Message, ...] = ()
    token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        assert self.token_ids is None or (self.token_ids and not self.follow_up), "a drawn answer is one turn"


@dataclass(frozen=True, slots=True)
class Group:
    """The unit of work: one prompt and its G answers; image and prompt belong to all of them."""

    prompt: Prompt
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One chosen answer and the rejected ones (none in a supervised row, usually one, two for averaged DPO).

    `weights` weighs the rejected answers (sums to 1). `origin` says which source made the pair and travels into
    every metric. `notes` are plain JSON values about how it was made (similarity, round, ...). `rejected_images` are
    pictures that the chosen answer does not fit, for objectives that compare pictures (mDPO).
    """

    prompt: Prompt
    chosen: Answer
    rejected: tuple[Answer, ...] = ()
    weights: tuple[float, ...] = ()
    origin: str = "offline"
    notes: dict[str, Any] = field(default_factory=dict)
    rejected_images: tuple[ImageRef, ...] = ()

    @property
    def group(self) -> Group:
        """Chosen first, then every rejected answer."""
        return Group(self.prompt, (self.chosen, *self.rejected))


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer that a policy drew, and what was made of it then; tuples hold a number per token, end token included.

    Args:
        answer: with the tokens that were drawn.
        truncated: the token limit ended it.
        reward: without the KL.
        logp, ref_logp: log-probs under the policy that drew it and under the reference, nats.
        advantages: how much better than expected, in units of the reward.
        values, returns: what a value function said in front of each token and is fitted to; empty without one.
    """

    answer: Answer
    truncated: bool
    reward: float
    logp: tuple[float, ...]
    ref_logp: tuple[float, ...]
    advantages: tuple[float, ...]
    values: tuple[float, ...] = ()
    returns: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """One prompt and the answers that a policy drew to it, rated.

    `token_weight`: times a sum over this rollout's tokens, the mean over a batch's rollouts is that over its tokens.
    """

    prompt: Prompt
    rated: tuple[Rated, ...]
    token_weight: float = 1.0

    @property
    def group(self) -> Group:
        """Prompt and answers."""
        return Group(self.prompt, tuple(one.answer for one in self.rated))


@dataclass(frozen=True, slots=True)
class BadRow:
    """What cannot be used: which file and row (0-based), a short reason to count by, and the detail.

    `fault` is False for what a rule leaves out on purpose (two answers rated alike): listed, but no reason to stop.
    """

    file: str
    row: int
    reason: str
    detail: str
    fault: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, to be compared. `uid` names the comparison in ledgers and random streams."""

    uid: str
    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of two answers is better. `unparsable`: the annotator's words name none; `raw` keeps them."""

    winner: Literal["first", "second", "tie", "unparsable"]
    reason: str = ""
    raw: str = ""


class Annotator(Protocol):
    """Compares answers, the pictures of their prompt in sight. Asks each comparison in the order it was given."""

    @property
    def name(self) -> str:
        """What it is, for notes and reports."""
        ...

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict each, in order."""
        ...


class Rewarder(Protocol):
    """Says how good answers are, the pictures of their prompt in sight."""

    @property
    def name(self) -> str:
        """What it is, for metrics and reports."""
        ...

    def rate(self, groups: Sequence[Group]) -> list[list[float]]:
        """One number per answer of every group, the larger the better."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a chat model: a user turn with pictures (shown before the text), and a system turn if any."""

    uid: str
    text: str
    images: tuple[ImageRef, ...] = ()
    system: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a chat model said, or (text "") why it said nothing."""

    text: str
    problem: str = ""


class Chat(Protocol):
    """A model that answers questions: over HTTP, on this machine, or a stand-in that knows the truth."""

    @property
    def name(self) -> str:
        """Which model, for notes and reports."""
        ...

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply each, in order."""
        ...


class Stream(Protocol[Drawn]):
    """Where what is trained on comes from."""

    def draw(self, n: int, policy: Any) -> list[Drawn]:
        """Exactly n of them, or an error. `policy` is the current one; streams that read a file ignore it."""
        ...

    def counts(self) -> dict[str, int]:
        """What was drawn and left out so far, by reason."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """JSON values that `load_state_dict` needs to continue mid-stream."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        ...


class Source(Stream[Pair], Protocol):
    """Where pairs come from. A wrapper (mixed, averaged) is a source too."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are drawn. `temperature` 0 is greedy; `top_p` in (0, 1] is applied after the temperature.

    An answer also ends where one of the strings `stop` comes up; neither it nor what follows is part of the text.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampled:
    """An answer as it was drawn. `token_ids` holds no end token, `end` does; `truncated`: the budget ended first."""

    text: str
    token_ids: tuple[int, ...]
    truncated: bool
    end: int | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens drawn, end token not counted."""
        return len(self.token_ids)

    @property
    def answer(self) -> Answer:
        """To be scored token by token as it was drawn."""
        return Answer(self.text, token_ids=(*self.token_ids, *(() if self.end is None else (self.end,))))
