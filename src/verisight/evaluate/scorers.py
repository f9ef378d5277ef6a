"""The public benchmarks: which files they take, how answers to them are scored, what is their headline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from verisight.evaluate.answers import FindUid, Truths
from verisight.evaluate.stats import Measure
from verisight.types import Decoding, ImageRef, Request, UserError

Row = dict[str, Any]
_ANSWER = Decoding(max_new_tokens=128, temperature=0.0)


class Files(NamedTuple):
    """What a user has of a benchmark.

    `annotations` in the order the scorer asks for; `objects`, `synonyms`, `ids` and `relabels` are CHAIR's and POPE's.
    `asks`: the questions are to be put to a model, not only scored.
    `among`: ids that there are answers to, for benchmarks whose questions are those that were asked (None: all).
    """

    annotations: tuple[Path, ...] = ()
    objects: Path | None = None
    synonyms: Path | None = None
    ids: Path | None = None
    relabels: tuple[Path, ...] = ()
    among: frozenset[str] | None = None
    asks: bool = False


class Opened(NamedTuple):
    """A benchmark whose files were read.

    `truths`: uid -> {cluster, truth}; `find_uid` finds the question that a row of answers belongs to; `score` adds to
    answer rows what `measures` sums. `version`: which edition, as far as the files tell.
    """

    truths: Truths
    find_uid: FindUid
    score: Callable[[Sequence[Row]], list[Row]]
    version: str = ""


class Asked(NamedTuple):
    """What a judge's request depends on besides the row: the user's rubric, and what it is shown."""

    template: str | None
    vision: bool
    images: Sequence[ImageRef]
    protocol: str


@dataclass(frozen=True, slots=True)
class Judging:
    """How a benchmark's judge is asked.

    `ask(row, settings)` gives its requests by the column that the replies go to. `decoding` is the
    official one. `without` names protocols that need no judge. `blind`: it must not see the pictures.
    """

    ask: Callable[[Row, Asked], Mapping[str, Request]]
    decoding: Decoding
    without: tuple[str, ...] = ()
    blind: bool = False


@dataclass(frozen=True, slots=True)
class Scorer:
    """One benchmark. `annotations` says which files it takes; the first of `protocols` is the default.

    `open_ended`: its questions are those that were asked, out of more (CHAIR over COCO); it finds their ids.
    """

    name: str
    annotations: str
    protocols: tuple[str, ...]
    open: Callable[[Files, str], Opened]
    measures: Callable[[Sequence[Row]], dict[str, Measure]]
    headline: tuple[str, ...]
    decoding: Decoding = _ANSWER
    judging: Judging | None = None
    open_ended: FindUid | None = None

    def judged(self, protocol: str) -> bool:
        """Whether this protocol needs a judge's replies."""
        return self.judging is not None and protocol not in self.judging.without

    def check_vision(self, vision: bool) -> None:
        """Refuse a judge that sees the pictures where it must not.

        Raises:
            UserError: that.
        """
        if vision and self.judging is not None and self.judging.blind:
            raise UserError(f"vision: {self.name} asks what a text says; a judge that sees the picture can't tell")

    def check_protocol(self, protocol: str | None) -> str:
        """The protocol, or the default one.

        Raises:
            UserError: one that the benchmark doesn't have.
        """
        if protocol is None:
            return self.protocols[0]
        if protocol not in self.protocols:
            raise UserError(f"--protocol: found {protocol!r}; {self.name} has {', '.join(self.protocols)}")
        return protocol


def take(files: Files, num: int | None, scorer: str, wanted: str, *, least: int = 1) -> tuple[Path, ...]:
    """The annotation files, if they are as many as wanted (None: `least` or more).

    Raises:
        UserError: more or fewer, or one that isn't there.
    """
    found = files.annotations
    if (num is not None and len(found) != num) or len(found) < least:
        raise UserError(f"--annotations: found {len(found)} files; {scorer} takes {wanted}")
    for file in found:
        if not file.is_file():
            raise UserError(f"--annotations: {file} is no file; {scorer} takes {wanted}")
    return found
