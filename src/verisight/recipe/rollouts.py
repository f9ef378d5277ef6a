"""Answers that the model draws and somebody rates: what RLOO and PPO learn from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from verisight.recipe.base import Count, File, Fraction, Node, NonNegative, Positive, Pretrained, about
from verisight.recipe.chats import Annotator
from verisight.recipe.data import Data


class OracleReward(Node):
    """The pocket world's oracle: less one for every untrue claim, less a part for what is missed."""

    kind: Literal["oracle"] = "oracle"
    scenes: Annotated[File, about("pocket scenes JSON of the pictures")]
    noise: Annotated[NonNegative, about("standard deviation of what is added to its reward")] = 0.0


class ModelReward(Node):
    """A reward model [paper eq. 1]."""

    kind: Literal["reward"] = "reward"
    path: Annotated[Pretrained, about("what training with objective reward wrote")]
    dtype: Annotated[Literal["float32", "bfloat16"], about("number format of the weights")] = "bfloat16"


class Wins(Node):
    """An annotator compares every two answers to a prompt: the share that an answer beats less that it loses to."""

    kind: Literal["wins"] = "wins"
    annotator: Annotated[Annotator, about("who compares answers")]


class PythonReward(Node):
    """A Python function f(prompt, text) -> float. Whoever runs the recipe runs it."""

    kind: Literal["python"] = "python"
    target: Annotated[
        str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"), about("package.module:function, importable")
    ]


Rewarder = Annotated[OracleReward | ModelReward | Wins | PythonReward, Field(discriminator="kind")]


class RewardPart(Node):
    """One of the rewards that are added up."""

    weight: Annotated[float, Field(strict=True), about("times the (normalised) reward; below 0 it is a penalty")] = 1.0
    rewarder: Annotated[Rewarder, about("who rates answers")]


class Guard(Node):
    """When the policy counts as collapsed: one limit broken for `patience` draws in a row stops the run."""

    max_kl: Annotated[Positive | None, about("nats per answer from the reference; empty: not held")] = 100.0
    max_repetition: Annotated[
        Fraction | None, about("share of an answer's word 4-grams that repeat; empty: not held")
    ] = 0.5
    max_truncated_fraction: Annotated[Fraction | None, about("share of answers cut off; empty: not held")] = 0.8
    min_length_fraction: Annotated[
        NonNegative | None, about("answers' tokens against those of the first step; empty: not held")
    ] = 0.5
    max_length_fraction: Annotated[
        Positive | None, about("answers' tokens against those of the first step; empty: not held")
    ] = 8.0
    min_distinct_fraction: Annotated[
        Fraction | None, about("share of prompts whose answers are not all the same; empty: not held")
    ] = 0.02
    patience: Annotated[Count, about("draws in a row")] = 5


class Rollouts(Node):
    """The model answers, rewarders rate: rollouts for RLOO and PPO [paper section 2, eq. 2]. Drawn at temperature 1."""

    kind: Literal["rollouts"] = "rollouts"
    data: Annotated[Data, about("questions; their answers are not used")]
    rewards: Annotated[tuple[RewardPart, ...], Field(min_length=1), about("what is added up to an answer's reward")]
    normalize: Annotated[
        Count | None,
        about(
            "prompts whose answers by the starting model give each reward's mean and deviation, with which it is "
            "normalised; empty: it is not [paper appendix A: statistics on the alignment set, before training]"
        ),
    ] = 128
    num_samples: Annotated[Count, about("answers drawn to a prompt [paper appendix A: RLOO 4]")] = 4
    max_new_tokens: Annotated[Count, about("longest answer, tokens; longer ones are cut off there and rated")] = 256
    truncated_penalty: Annotated[NonNegative, about("taken off the reward of an answer that was cut off")] = 0.0
    minibatches: Annotated[
        Count, about("optimizer steps that a batch of rollouts is cut into [Schulman et al. 2017]")
    ] = 1
    epochs: Annotated[Count, about("times that a batch of rollouts is trained on [Schulman et al. 2017]")] = 1
    guard: Annotated[Guard | None, about("when the run stops by itself; empty: never")] = Guard()
    batch_size: Annotated[Count, about("prompts scored at once before the step; changes speed and memory only")] = 16
