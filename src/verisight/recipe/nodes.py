"""The nodes of a recipe: a knob only on the variant that uses it.

Every field says what it is, in which unit and, in brackets, which publication it comes from;
"paper" is Amirloo et al. 2024, arXiv 2407.02477. A choice between variants is made by the key `kind`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verisight.recipe.base import (
    Count,
    File,
    Folder,
    Fraction,
    Node,
    NonNegative,
    Nucleus,
    OptionalFile,
    Positive,
    Pretrained,
    Seed,
    Smoothing,
    Switch,
    about,
)
from verisight.recipe.data import Data

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


class Masked(Node):
    """Most image tokens are hidden from attention: BDHS_attn [paper section 3.4, eq. 6]."""

    kind: Literal["masked"] = "masked"
    rho: Annotated[Fraction, about("share of image tokens hidden, 0 none to 1 all [paper eq. 6]")] = 0.99
    positions: Annotated[
        Literal["original", "compact"],
        about("position ids of the tokens that stay: kept, or renumbered without gaps"),
    ] = "original"
    scope: Annotated[
        Literal["all", "answer"],
        about("hidden from all tokens, or from the answer's alone while prompt and image still see each other"),
    ] = "all"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scope == "answer" and self.positions == "compact":
            return self.refuse(
                ["found positions compact with scope answer, which keeps every token; accepted: positions original"]
            )
        return self


class Clean(Node):
    """The image is seen as it is: answers are the model's own."""

    kind: Literal["clean"] = "clean"


class SentenceGuided(Node):
    """Each reference sentence is cut and finished by the model after the true earlier ones [paper eq. 7]."""

    kind: Literal["sentence_guided"] = "sentence_guided"
    yes_no_swap: Annotated[
        Fraction, about("probability to turn a leading Yes into No and back [paper section 3.4]")
    ] = 0.5
    max_new_tokens: Annotated[Count, about("longest completion of one sentence, tokens")] = 64


class Free(Node):
    """The whole answer is sampled without the reference [paper algorithm 1, last round]."""

    kind: Literal["free"] = "free"
    max_new_tokens: Annotated[Count, about("longest answer, tokens")] = 256


class Dissimilar(Node):
    """An answer too similar to the reference is drawn again [paper algorithm 1]."""

    kind: Literal["dissimilar"] = "dissimilar"
    encoder: Annotated[
        Pretrained,
        about("sentence encoder: folder, hub id, or `pocket` [Reimers and Gurevych 2019; paper section 3.4]"),
    ] = "sentence-transformers/all-mpnet-base-v2"
    eps: Annotated[Fraction, about("kept below this cosine similarity to the reference [paper section 3.4]")] = 0.97
    rounds: Annotated[Count, about("tries an answer gets; the last of several is free [paper algorithm 1, n_bdhs]")] = 5


class Always(Node):
    """The first answer is kept."""

    kind: Literal["always"] = "always"


class Sampling(Node):
    """How tokens are drawn."""

    temperature: Annotated[NonNegative, about("divides the logits; 0 takes the likeliest token")] = 1.0
    top_p: Annotated[
        Nucleus, about("draw from the likeliest tokens of this total probability [Holtzman et al. 2020]")
    ] = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.temperature == 0 and self.top_p < 1:
            return self.refuse([f"found top_p {self.top_p} with temperature 0, which ignores it; accepted: 1"])
        return self


class Negatives(Node):
    """How rejected answers are made: view x guidance x check [paper section 3.4]."""

    view: Annotated[Masked | Clean, Field(discriminator="kind"), about("what the model sees of the image")] = Masked()
    guidance: Annotated[
        SentenceGuided | Free, Field(discriminator="kind"), about("how the answer follows the reference")
    ] = SentenceGuided()
    check: Annotated[Dissimilar | Always, Field(discriminator="kind"), about("when an answer is kept")] = Dissimilar()
    decoding: Annotated[Sampling, about("how tokens are drawn")] = Sampling()
    batch_size: Annotated[Count, about("prompts completed at once; changes speed and memory only")] = 16


class Offline(Node):
    """Rows are read from a file."""

    kind: Literal["offline"] = "offline"
    data: Annotated[Data, about("the rows")]


class Generated(Node):
    """Chosen answers come from a file, rejected ones from the model: BDHS and kin [paper section 3.4]."""

    kind: Literal["generated"] = "generated"
    data: Annotated[Data, about("questions with the answers to prefer; rejected ones are not used")]
    negatives: Annotated[Negatives, about("how rejected answers are made")] = Negatives()
    when: Annotated[
        Literal["offline", "online"],
        about("once with the base model, or each step with the current one [paper section 3.4]"),
    ] = "offline"


class Dpo(Node):
    """Direct preference optimization [Rafailov et al. 2023, eq. 7; paper eq. 3]."""

    kind: Literal["dpo"] = "dpo"
    beta: Annotated[Positive, about("weight of staying near the reference, per nat [Rafailov et al. 2023, eq. 7]")] = (
        0.1
    )
    label_smoothing: Annotated[
        Smoothing, about("share of pairs taken to be swapped [Mitchell 2023, conservative DPO]")
    ] = 0.0


class Sft(Node):
    """Supervised fine-tuning on the chosen answers, the control of every alignment."""

    kind: Literal["sft"] = "sft"


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


Source = Annotated[Offline | Generated, Field(discriminator="kind")]
Objective = Annotated[Dpo | Sft, Field(discriminator="kind")]
Benchmark = Annotated[Chair | Pope, Field(discriminator="kind")]
