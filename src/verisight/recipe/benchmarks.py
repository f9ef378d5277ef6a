"""What a recipe measures: benchmarks built from COCO-format files, public ones from their own, and our own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verisight.recipe.base import Count, File, Folder, Node, OptionalFile, Seed, Switch, about
from verisight.recipe.chats import Http, Local

_DETAIL = "Please describe this image in detail."


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
    protocol: Annotated[
        Literal["official", "corrected"],
        about("how objects are found in texts; official keeps the known errors [Rohrbach et al. 2018]"),
    ] = "official"
    synonyms: Annotated[OptionalFile, about("words for objects, in CHAIR's format; empty: our own")] = None
    max_new_tokens: Annotated[Count, about("longest description, tokens")] = 512


class Pope(Node):
    """Yes/no questions about objects: random, popular and adversarial ones [Li et al. 2023]."""

    kind: Literal["pope"] = "pope"
    images: Annotated[Folder, about("folder of the images that are asked about")]
    instances: Annotated[
        OptionalFile, about("COCO instances JSON, to build the questions: objects in each image [Lin et al. 2014]")
    ] = None
    questions: Annotated[
        tuple[File, ...], about("released question files in place of building some (coco_pope_random.json, ...)")
    ] = ()
    relabels: Annotated[tuple[File, ...], about("RePOPE's label files [Neuhaus and Hein 2025]")] = ()
    captions: Annotated[OptionalFile, about("COCO captions JSON; objects named there count too")] = None
    num_images: Annotated[Count, about("images drawn [Li et al. 2023: 500]")] = 500
    per_image: Annotated[Count, about("objects asked about per image and split [Li et al. 2023: 3]")] = 3
    seed: Annotated[Seed, about("draws images and absent objects")] = 0
    parser: Annotated[
        Literal["official", "corrected"],
        about("how yes and no are read; official keeps the known errors [Li et al. 2023]"),
    ] = "official"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.instances is None) == (not self.questions):
            both = "both" if self.questions else "neither"
            return self.refuse([f"found {both} of instances and questions; accepted: one of them"])
        if self.relabels and not self.questions:
            return self.refuse(["relabels: found without questions, whose labels they correct; accepted: both"])
        return self


class Public(Node):
    """A public benchmark from its own files; `verisight score` scores saved answers to it."""

    kind: Literal["amber", "gqa", "hallusion", "llava_bench", "mmhal", "mmvet", "object_hal", "textvqa"]
    images: Annotated[Folder, about("folder of its pictures")]
    annotations: Annotated[tuple[File, ...], Field(min_length=1), about("its own files, in order")]
    objects: Annotated[OptionalFile, about("object_hal: objects of each image as {image_id: [name, ...]}")] = None
    protocol: Annotated[str | None, about("whose rules; empty: official")] = None
    suffix: Annotated[
        str | None, about("put after every question, in place of the benchmark's own instruction; empty: that")
    ] = None
    limit: Annotated[Count | None, about("ask the first so many questions; empty: all")] = None
    max_new_tokens: Annotated[Count | None, about("longest answer, tokens; empty: the benchmark's own")] = None
    judge: Annotated[Http | Local | None, Field(discriminator="kind"), about("who judges, if somebody has to")] = None
    votes: Annotated[Count, about("requests a question; more than one needs a temperature")] = 1
    vision: Annotated[Switch, about("the judge sees the pictures [paper section 5, MMHALBench-V]")] = False
    rubric: Annotated[OptionalFile, about("a rubric in place of ours, as text")] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.judge is None:
            given = [name for name in ("vision", "rubric") if getattr(self, name)] + ["votes"] * (self.votes > 1)
            return self.refuse([f"{name}: found without a judge; accepted: with one" for name in given])
        if self.votes > 1 and self.judge.temperature == 0:
            told = f"votes: found {self.votes} of a judge at temperature 0, which is one vote {self.votes} times"
            return self.refuse([f"{told}; accepted: judge.temperature above 0"])
        return self


class Grounded(Node):
    """GroundedBench: claims and yes/no questions about pictures whose content is known completely."""

    kind: Literal["grounded"] = "grounded"
    form: Annotated[Folder, about("a form of it, as `verisight pocket grounded` writes it")]


Benchmark = Annotated[Chair | Pope | Public | Grounded, Field(discriminator="kind")]


def benchmark_name(node: Benchmark) -> str:
    """The name of its answers' file; a judge that sees the pictures makes it another benchmark."""
    return f"{node.kind}_v" if isinstance(node, Public) and node.vision else node.kind
