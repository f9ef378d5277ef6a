"""The model and the benchmarks of a recipe: a knob only on the variant that uses it.

Every field says what it is, in which unit and, in brackets, which publication it comes from;
"paper" is Amirloo et al. 2024, arXiv 2407.02477. A choice between variants is made by the key `kind`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from verisight.recipe.base import (
    Count,
    File,
    Folder,
    Node,
    OptionalFile,
    Pretrained,
    Seed,
    Switch,
    about,
)

_DETAIL = "Please describe this image in detail."


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


class Chair(Node):
    """Hallucinated objects in captions, and recall [Rohrbach et al. 2018]."""

    kind: Literal["chair"] = "chair"
    images: Annotated[Folder, about("folder of the images that are described")]
    instances: Annotated[File, about("COCO instances JSON: objects in each image [Lin et al. 2014]")]
    captions: Annotated[OptionalFile, about("COCO captions JSON; objects named there count too")] = None
    scenes: Annotated[
        OptionalFile, about("pocket scenes JSON, for positions and hallucinations typical of a scene")
    ] = None
    prompt: Annotated[str, about("the question asked of every image")] = _DETAIL
    limit: Annotated[Count | None, about("describe the first so many images; empty: all")] = None
    max_new_tokens: Annotated[Count, about("longest description, tokens")] = 512


class Pope(Node):
    """Yes/no questions about objects: random, popular and adversarial ones [Li et al. 2023]."""

    kind: Literal["pope"] = "pope"
    images: Annotated[Folder, about("folder of the images that are asked about")]
    instances: Annotated[File, about("COCO instances JSON: objects in each image [Lin et al. 2014]")]
    captions: Annotated[OptionalFile, about("COCO captions JSON; objects named there count too")] = None
    num_images: Annotated[Count, about("images drawn [Li et al. 2023: 500]")] = 500
    per_image: Annotated[Count, about("objects asked about per image and split [Li et al. 2023: 3]")] = 3
    seed: Annotated[Seed, about("draws images and absent objects")] = 0
    parser: Annotated[
        Literal["official", "corrected"],
        about("how yes and no are read; official keeps the known errors [Li et al. 2023]"),
    ] = "official"


Benchmark = Annotated[Chair | Pope, Field(discriminator="kind")]
