"""Where pairs come from: files, the model itself, or both; sources are made of sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verisight.recipe.base import Count, Fraction, Node, NonNegative, about, join
from verisight.recipe.chats import Annotator
from verisight.recipe.data import Data
from verisight.recipe.negatives import Negatives, Sampling
from verisight.recipe.rollouts import Rollouts

When = Annotated[
    Literal["offline", "online"],
    about("once with the base model, or each step with the current one [paper section 3.4]"),
]


class Offline(Node):
    """Rows are read from a file."""

    kind: Literal["offline"] = "offline"
    data: Annotated[Data, about("the rows")]


class Generated(Node):
    """Chosen answers come from a file, rejected ones from the model: BDHS and kin [paper section 3.4]."""

    kind: Literal["generated"] = "generated"
    data: Annotated[Data, about("questions with the answers to prefer; rejected ones are not used")]
    negatives: Annotated[Negatives, about("how rejected answers are made")] = Negatives()
    when: When = "offline"


class Online(Node):
    """The current model answers, an annotator says which answer is better: Online-DPO [Guo et al. 2024; paper 3.2]."""

    kind: Literal["online"] = "online"
    data: Annotated[Data, about("questions; their answers are not used")]
    annotator: Annotated[Annotator, about("who compares answers")]
    num_samples: Annotated[
        int, Field(ge=2, strict=True), about("answers drawn; the best and the worst make a pair [paper: 2]")
    ] = 2
    decoding: Annotated[Sampling, about("how tokens are drawn")] = Sampling()
    max_new_tokens: Annotated[Count, about("longest answer, tokens; longer ones are dropped")] = 256
    batch_size: Annotated[Count, about("prompts answered at once; changes speed and memory only")] = 16

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.decoding.temperature == 0:
            return self.refuse(
                ["found decoding.temperature 0, which draws the same answer each time; accepted: above 0"]
            )
        return self


class MixedPart(Node):
    """A source in a mixture."""

    weight: Annotated[NonNegative, about("how often it is drawn from; weights need not sum to 1 [paper eq. 4: p]")]
    source: Annotated[Source, about("where its pairs come from")]


class Mixed(Node):
    """Every pair comes from one of several sources; Mixed-DPO is offline and online at 0.5 [paper eq. 4]."""

    kind: Literal["mixed"] = "mixed"
    parts: Annotated[tuple[MixedPart, ...], Field(min_length=2), about("the sources")]
    order: Annotated[
        Literal["bernoulli", "interleave"],
        about("the part of each pair is drawn at random [paper eq. 4], or alternates in exact shares"),
    ] = "bernoulli"

    @model_validator(mode="after")
    def _check(self) -> Self:
        weights = [part.weight for part in self.parts]
        return self.refuse([] if any(weights) else [f"found weights {weights}; accepted: at least one above 0"])


class Averaged(Node):
    """Pairs get one more rejected answer, made by the model; the losses of both are averaged [paper eq. 5]."""

    kind: Literal["averaged"] = "averaged"
    source: Annotated[Source, about("pairs with a rejected answer")]
    negatives: Annotated[Negatives, about("how the other rejected answer is made")] = Negatives()
    gamma: Annotated[Fraction, about("weight of the given rejected answer [paper eq. 5: 0.5]")] = 0.5
    when: When = "online"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.when == "offline" and not isinstance(self.source, Offline):
            found = f"found when offline with a source of kind {self.source.kind}; accepted: a source of kind offline"
            return self.refuse([found])
        return self


class Iterated(Node):
    """Pairs are made for so many steps ahead by the model as it is then: between online and offline."""

    kind: Literal["iterated"] = "iterated"
    source: Annotated[Source, about("where pairs come from")]
    every: Annotated[Count, about("steps until the model that makes pairs is brought up to date")]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if is_fixed(self.source):
            found = f"found a source of kind {self.source.kind} whose pairs never change; accepted: one that is online"
            return self.refuse([found])
        return self


Source = Annotated[
    Offline | Generated | Online | Mixed | Averaged | Iterated,
    Field(discriminator="kind"),
]
for _node in (MixedPart, Mixed, Averaged, Iterated):
    _node.model_rebuild()


def is_fixed(source: Source | Rollouts) -> bool:
    """Whether all pairs are known before training."""
    match source:
        case Offline():
            return True
        case Generated(when=when) | Averaged(when=when):
            return when == "offline"
        case Mixed(parts=parts):
            return all(is_fixed(part.source) for part in parts)
        case _:
            return False


def below(source: Source | Rollouts, key: str = "source") -> Iterator[tuple[str, Source | Rollouts]]:
    """The source and every one below it, each with its dotted key."""
    yield key, source
    if isinstance(source, Mixed):
        for number, part in enumerate(source.parts):
            yield from below(part.source, join(key, f"parts.{number}.source"))
    elif isinstance(source, Averaged | Iterated):
        yield from below(source.source, join(key, "source"))


def with_data(
    source: Source | Rollouts, key: str = "source"
) -> list[tuple[str, Offline | Generated | Online | Rollouts]]:
    """The sources that read data, each with its dotted key."""
    return [(k, node) for k, node in below(source, key) if isinstance(node, Offline | Generated | Online | Rollouts)]
