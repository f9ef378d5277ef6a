"""The model of a recipe: a knob only on the variant that uses it.

Every field says what it is, in which unit and, in brackets, which publication it comes from;
"paper" is Amirloo et al. 2024, arXiv 2407.02477. A choice between variants is made by the key `kind`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from verisight.recipe.base import Count, Node, Pretrained, Switch, about


class Lora(Node):
    """Low-rank adapters are trained, the rest is frozen [Hu et al. 2021]."""

    kind: Literal["lora"] = "lora"
    r: Annotated[Count, about("rank of the adapters [Hu et al. 2021; paper appendix A: 128]")] = 128
    alpha: Annotated[Count, about("adapters are scaled by alpha / r [Hu et al. 2021; paper appendix A: 256]")] = 256
    targets: Annotated[
        Literal["language", "all"],
        about("whose linear layers get one: the language model's, or the vision tower's and projector's too"),
    ] = "language"


class Full(Node):
    """Every weight of the language model is trained."""

    kind: Literal["full"] = "full"


class Model(Node):
    """The model that is aligned."""

    path: Annotated[Pretrained, about("model folder, hub id, or `pocket` for the built-in model")]
    dtype: Annotated[Literal["float32", "bfloat16"], about("number format of the weights")] = "float32"
    tune: Annotated[Lora | Full, Field(discriminator="kind"), about("which language weights are trained")] = Lora()
    train_projector: Annotated[Switch, about("train the vision-to-language projector too [paper appendix A]")] = True
    trust_remote_code: Annotated[Switch, about("run Python code that comes with the model")] = False
