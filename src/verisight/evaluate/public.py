"""A public benchmark (`table.SCORERS`) as questions to a model, and its judge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from verisight.data.images import resolve_image
from verisight.evaluate.benchmark import Item
from verisight.evaluate.judged import Question, collect, questions, waiting
from verisight.evaluate.scorers import Asked, Files, Opened, Row, Scorer
from verisight.evaluate.stats import summarise
from verisight.types import Chat, Decoding, ImageRef, Prompt, Request, UserError


@dataclass(frozen=True, slots=True)
class Judge:
    """How a judge is asked.

    Args:
        name: names model, address and settings; another judge is asked anew.
        open: gives who is asked, once there is something to ask; gets the folder of the evaluation.
        votes: requests a question.
        vision: it sees the pictures, which are in the folder `images`.
        template: text of a rubric in place of ours.
        protocol: whose rules; some ask in both orders.
    """

    name: str
    open: Callable[[Path], Chat]
    votes: int = 1
    vision: bool = False
    images: Path | None = None
    template: str | None = None
    protocol: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """What a summary says of it."""
        rubric = "own" if self.template is None else hashlib.sha256(self.template.encode()).hexdigest()[:12]
        return {"name": self.name, "votes": self.votes, "vision": self.vision, "rubric": rubric}

    def questions(self, scorer: Scorer, rows: Sequence[Row]) -> list[Question]:
        """Everything that it is asked about these rows.

        Raises:
            UserError: a picture that it should see is missing.
        """
        judging = scorer.judging
        assert judging is not None, f"{scorer.name} has no judge"

        def ask(row: Row) -> Mapping[str, Request]:
            return judging.ask(row, Asked(self.template, self.vision, self._pictures(row), self.protocol))

        return questions(rows, ask, judge=self.name, votes=self.votes)

    def replies(
        self, scorer: Scorer, rows: Sequence[Row], folder: Path, advance: Callable[[int], object] | None = None
    ) -> list[Row]:
        """The rows with its replies; those that are on file in `folder`/evaluate are not asked for again."""
        asked, file = self.questions(scorer, rows), replies_path(folder, entry_name(scorer, self))
        return collect(rows, asked, self.open(folder) if waiting(asked, file) else None, file=file, advance=advance)

    def _pictures(self, row: Row) -> tuple[ImageRef, ...]:
        name = row["truth"].get("image")
        if not self.vision or name is None:
            return ()
        assert self.images is not None, "a judge that sees is given a folder of pictures"
        path = resolve_image(self.images, name)
        if path is None:
            raise UserError(f"images: {name}, the picture of {row['uid']}, is not in {self.images}")
        return (ImageRef(path=path),)


def entry_name(scorer: Scorer, judge: Judge | None) -> str:
    """File name and summary key: a judge that sees the pictures makes another benchmark, mmhal_v of mmhal."""
    return f"{scorer.name}_v" if judge is not None and judge.vision else scorer.name


def replies_path(folder: Path, name: str) -> Path:
    """Where a judge's replies are kept; `name` is the `entry_name`."""
    return folder / "evaluate" / f"{name}.replies.jsonl"


@dataclass(frozen=True, kw_only=True)
class PublicBenchmark:
    """A benchmark of the table, asked of a model (`Benchmark`), and judged if its protocol needs that (`Judged`).

    Args:
        scorer: which one.
        files: its own files.
        images: folder of its pictures.
        protocol: whose rules; None: the first.
        suffix: put after every question in place of the benchmark's own instruction (None: that, if it has one).
        max_new_tokens: longest answer; None: the benchmark's own.
        judge: who judges; needed exactly where the protocol has one.
        limit: ask the first so many questions.
    """

    scorer: Scorer
    files: Files
    images: Path
    protocol: str
    suffix: str | None = None
    max_new_tokens: int | None = None
    judge_settings: Judge | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        self.scorer.check_protocol(self.protocol)
        if self.scorer.judged(self.protocol) != (self.judge_settings is not None):
            has = "needs a judge" if self.judge_settings is None else "asks no judge"
            raise UserError(f"{self.name}: protocol {self.protocol} {has}")
        if self.suffix is not None and self.protocol.endswith("-ocr"):
            raise UserError(f"{self.name}: found a suffix with protocol {self.protocol}, whose prompts hold OCR words")
        self.scorer.check_vision(self.judge_settings is not None and self.judge_settings.vision)

    @property
    def name(self) -> str:
        """Its file name and summary key."""
        return entry_name(self.scorer, self.judge_settings)

    @property
    def decoding(self) -> Decoding:
        """Greedy, as long as the benchmark's own runs."""
        if self.max_new_tokens is None:
            return self.scorer.decoding
        return Decoding(self.max_new_tokens, self.scorer.decoding.temperature)

    @cached_property
    def opened(self) -> Opened:
        """What its files hold."""
        return self.scorer.open(self.files._replace(asks=True), self.protocol)

    def items(self) -> list[Item]:
        """Every question with its picture.

        Raises:
            UserError: a file that can't be used, or a picture that is missing.
        """
        items = []
        for uid, entry in list(self.opened.truths.items())[: self.limit]:
            truth, images = dict(entry["truth"]), ()
            if truth.get("image") is not None:
                path = resolve_image(self.images, truth["image"])
                if path is None:
                    raise UserError(f"{self.name}: {truth['image']}, the picture of {uid}, is not in {self.images}")
                images = (ImageRef(path=path),)
            own = truth.get("prompt", truth["question"])
            text = own if self.suffix is None else truth["question"] + self.suffix
            prompt = Prompt(uid, images, text, split_group=entry["cluster"], provenance=self.name)
            items.append(Item(uid, prompt, entry["cluster"], truth))
        return items

    def judge(self, rows: Sequence[Row], folder: Path) -> list[Row]:
        """The rows with the judge's replies, if it has a judge."""
        if self.judge_settings is None:
            return list(rows)
        return self.judge_settings.replies(self.scorer, rows, folder)

    def about(self) -> dict[str, Any]:
        """Version and judge, for the summary."""
        judge = None if self.judge_settings is None else self.judge_settings.facts
        return {"version": self.opened.version, "judge": judge}

    def score(self, rows: Sequence[Row]) -> list[Row]:
        """By the scorer of its name."""
        return self.opened.score(rows)

    def summary(self, scored: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
        """Its measures with intervals."""
        return summarise(self.scorer.measures(scored), [row["cluster"] for row in scored], seed=seed)
