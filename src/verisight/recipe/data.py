"""Where rows come from: public data sets by name, and what is done with them before training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from verisight.recipe.base import (
    Count,
    DataPath,
    Node,
    OptionalPictures,
    Positive,
    Seed,
    Share,
    Switch,
    about,
)

Note = str | int | float | bool


class AllPairs(Node):
    """Every two answers of different score [Li et al. 2024, VLFeedback's own rule]."""

    kind: Literal["all_pairs"] = "all_pairs"


class BestWorst(Node):
    """The best answer against the worst, one pair a prompt."""

    kind: Literal["best_worst"] = "best_worst"


class Margin(Node):
    """Every two answers whose scores are so far apart."""

    kind: Literal["margin"] = "margin"
    least: Annotated[Positive, about("smallest difference of scores, in the set's own units")]


class Take(Node):
    """A random draw; a smaller one of the same seed is part of a larger one [paper section 4: 5,000 of each set]."""

    kind: Literal["take"] = "take"
    num: Annotated[Count, about("pairs drawn")]
    seed: Annotated[Seed, about("draws the pairs, whatever order the file has")] = 0


class Filter(Node):
    """Pairs that meet every condition [paper tables 3-5]."""

    kind: Literal["filter"] = "filter"
    chosen_model: Annotated[tuple[str, ...], about("models that may have written the chosen answer; empty: any")] = ()
    rejected_model: Annotated[tuple[str, ...], about("models that may have written the rejected one; empty: any")] = ()
    notes: Annotated[
        dict[str, tuple[Note, ...]] | None, about("accepted values of notes the data set has, such as category")
    ] = None
    max_words: Annotated[Count | None, about("longest answer, words; empty: any")] = None
    min_score_gap: Annotated[Positive | None, about("least difference of the answers' scores; empty: any")] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(getattr(self, name) for name in _FILTERS):
            return self.refuse([f"found no condition; accepted: at least one of {', '.join(list(_FILTERS))}"])
        return self


_FILTERS = tuple(name for name in Filter.model_fields if name != "kind")


class Split(Node):
    """One side of a split by picture: pairs that share one are never torn apart."""

    kind: Literal["split"] = "split"
    part: Annotated[Literal["train", "held_out"], about("the side that is kept")]
    held_out: Annotated[Share, about("share of the groups of pairs that is held out")] = 0.1
    seed: Annotated[Seed, about("draws the groups, whatever order the file has")] = 0


class Prompts(Node):
    """Pairs whose prompt was (or was not) among those of other data, the SFT data as a rule [paper table 3]."""

    kind: Literal["prompts"] = "prompts"
    which: Annotated[Literal["seen", "new"], about("prompts that the other data has, or those that it has not")]
    of: Annotated[Data, about("the other data")]
    match: Annotated[
        Literal["prompt", "question"], about("picture, history and question have to be equal, or the question alone")
    ] = "prompt"


class Replace(Node):
    """An answer of every pair taken from other data; pairs without a counterpart are left out [paper table 5]."""

    kind: Literal["replace"] = "replace"
    answer: Annotated[Literal["chosen", "rejected"], about("the answer that is replaced")]
    by: Annotated[Data, about("the data that has the other answer")]
    match: Annotated[
        Literal["prompt", "question", "prompt_and_chosen"],
        about("what has to be equal; prompt_and_chosen: a corruption of this very answer"),
    ] = "prompt"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.answer == "chosen" and self.match == "prompt_and_chosen":
            return self.refuse(
                ["found match prompt_and_chosen for the chosen answer itself; accepted: prompt, question"]
            )
        return self


_StepName = Literal["take", "filter", "split", "prompts", "replace"]


def _step(value: Any) -> Any:
    """`take: 5000` and `filter: {...}` as the nodes they stand for."""
    if not isinstance(value, list | tuple):
        return value
    return [_written_out(entry) for entry in value]


def _written_out(entry: Any) -> Any:
    if not isinstance(entry, dict) or "kind" in entry:
        return entry
    if len(entry) != 1:
        raise ValueError(f"found a step with the keys {', '.join(map(str, entry))}; accepted: one step an entry")
    ((name, content),) = entry.items()
    if name == "take" and not isinstance(content, dict):
        return {"kind": "take", "num": content}
    if name in get_args(_StepName) and isinstance(content, dict):
        return {"kind": str(name)} | content
    accepted = f"take: NUMBER, or one of {', '.join(get_args(_StepName))} with its settings in braces"
    raise ValueError(f"found the step {name}: {content!r}; accepted: {accepted}")


Step = Annotated[Take | Filter | Split | Prompts | Replace, Field(discriminator="kind")]
Written = BeforeValidator(_step, json_schema_input_type=tuple[Step | dict[_StepName, Any], ...])
Then = Annotated[tuple[Step, ...], Written, about("what is done with the pairs, in this order")]
Rule = Annotated[AllPairs | BestWorst | Margin, Field(discriminator="kind")]


class Rows(Node):
    """A data set by name; `auto` tells it by its rows' keys."""

    kind: Literal[
        "auto", "llava_instruct", "pairs", "povid", "csr", "llava_rlhf", "rlhf_v", "rlaif_v", "spa_vl", "mm_rlhf",
        "mdpo", "trl", "llama_factory", "ms_swift",
    ]  # fmt: skip
    file: Annotated[DataPath, about("the data: a file, a pattern with *, or a folder of Parquet shards")]
    images: Annotated[
        OptionalPictures,
        about("folder or zip archive of the pictures; empty: they are in the data, or beside it"),
    ] = None
    text_only: Annotated[Switch, about("accept rows without a picture")] = False
    limit: Annotated[Count | None, about("read the first so many rows; empty: all")] = None
    then: Then = ()


class Rated(Node):
    """A data set of rated answers, of which a rule makes pairs."""

    kind: Literal["vlfeedback", "nlf", "bpo"]
    file: Annotated[DataPath, about("the data: a file, a pattern with *, or a folder of Parquet shards")]
    images: Annotated[
        OptionalPictures,
        about("folder or zip archive of the pictures; empty: they are in the data, or beside it"),
    ] = None
    rule: Annotated[Rule, about("which answers are compared")] = AllPairs()
    text_only: Annotated[Switch, about("accept rows without a picture")] = False
    limit: Annotated[Count | None, about("read the first so many rows; empty: all")] = None
    then: Then = ()


class Concat(Node):
    """Several data sets, one behind the other."""

    kind: Literal["concat"] = "concat"
    parts: Annotated[tuple[Data, ...], Field(min_length=1), about("the data sets")]
    then: Then = ()


class Part(Node):
    """A data set and its share of a mixture."""

    share: Annotated[Positive, about("its weight; shares need not sum to 1")]
    data: Annotated[Data, about("the data set")]


class Mix(Node):
    """A random draw of each part in proportion to its share, no pair of a part twice."""

    kind: Literal["mix"] = "mix"
    parts: Annotated[tuple[Part, ...], Field(min_length=1), about("data sets and their shares")]
    num: Annotated[Count | None, about("pairs in all; empty: as many as the parts allow")] = None
    seed: Annotated[Seed, about("draws the pairs")] = 0
    then: Then = ()


Data = Annotated[Rows | Rated | Concat | Mix, Field(discriminator="kind")]
for _node in (Prompts, Replace, Rows, Rated, Concat, Part, Mix):
    _node.model_rebuild()


def compares(data: Rows | Rated | Concat | Mix) -> bool:
    """Whether its rows have rejected answers, as far as can be said before they are read."""
    if any(isinstance(step, Replace) and step.answer == "rejected" for step in data.then):
        return True
    match data:
        case Rows(kind=kind):
            return kind != "llava_instruct"
        case Rated():
            return True
        case Concat(parts=parts):
            return all(compares(part) for part in parts)
        case Mix(parts=shares):
            return all(compares(part.data) for part in shares)


def replaces_rejected(data: Rows | Rated | Concat | Mix) -> bool:
    """Whether a step of the node, or of one below it, gives pairs other rejected answers."""
    if any(isinstance(step, Replace) and step.answer == "rejected" for step in data.then):
        return True
    match data:
        case Concat(parts=parts):
            return any(map(replaces_rejected, parts))
        case Mix(parts=shares):
            return any(replaces_rejected(share.data) for share in shares)
        case _:
            return False
