"""How rejected answers are made: view x guidance x check."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verisight.negatives.thresholds import recommended_eps
from verisight.recipe.base import Count, Fraction, Node, NonNegative, Nucleus, Pretrained, about
from verisight.recipe.chats import Rewrite


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


class Noised(Node):
    """The picture carries the noise of many diffusion steps at once: BDHS_noise and POVID [paper eqs. 8-9]."""

    kind: Literal["noised"] = "noised"
    steps: Annotated[int, Field(ge=1, le=999, strict=True), about("diffusion steps [paper: 500]")] = 500
    overflow: Annotated[
        Literal["clamp", "wrap"],
        about("pixels beyond black and white: cut off, or wrapped round as in the code released with POVID"),
    ] = "clamp"


class Blank(Node):
    """The picture is one plain colour."""

    kind: Literal["blank"] = "blank"
    colour: Annotated[Literal["mean", "grey", "black"], about("which; mean: the picture's own")] = "grey"


class Cropped(Node):
    """A random small part of the picture [Wang et al. 2024, mDPO: 0 to 20 %]."""

    kind: Literal["cropped"] = "cropped"
    low: Annotated[Fraction, about("least share of the area that stays [Wang et al. 2024: 0.01]")] = 0.01
    high: Annotated[Nucleus, about("largest share of the area that stays")] = 0.2

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            return self.refuse([f"found low {self.low} above high {self.high}; accepted: low up to high"])
        if self.low == 1:
            return self.refuse(["found low 1, which crops nothing; accepted: less"])
        return self


class Swapped(Node):
    """Another picture of the same data set."""

    kind: Literal["swapped"] = "swapped"


class BadPrompt(Node):
    """The question is put in a misleading way [Deng et al. 2024, STIC]."""

    kind: Literal["bad_prompt"] = "bad_prompt"
    texts: Annotated[tuple[str, ...], about("misleading instructions, one of which is drawn; empty: our own")] = ()
    place: Annotated[Literal["after", "instead"], about("behind the question, or in its place [Deng et al. 2024]")] = (
        "after"
    )
    degraded: Annotated[
        Fraction, about("share of draws that degrade the picture and leave the question [Deng et al. 2024: 0.5]")
    ] = 0.0


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


class TokenForced(Node):
    """Every token is what the model would say next after the true ones: POVID's distortion [Zhou et al. 2024]."""

    kind: Literal["token_forced"] = "token_forced"


class Free(Node):
    """The whole answer is sampled without the reference [paper algorithm 1, last round]."""

    kind: Literal["free"] = "free"
    max_new_tokens: Annotated[Count, about("longest answer, tokens")] = 256


class Dissimilar(Node):
    """An answer too similar to the reference is drawn again [paper algorithm 1]."""

    kind: Literal["dissimilar"] = "dissimilar"
    encoder: Annotated[
        Pretrained,
        about(
            "sentence encoder: folder, hub id, `all-MiniLM-L6-v2` (its package, no network) or `pocket` (built in) "
            "[Reimers and Gurevych 2019; paper section 3.4]"
        ),
    ] = "sentence-transformers/all-mpnet-base-v2"
    eps: Annotated[
        Fraction | None,
        about(
            "kept below this cosine similarity to the reference; empty: the encoder's own, where it was measured "
            "[paper section 3.4: 0.97 with all-mpnet-base-v2]"
        ),
    ] = None
    rounds: Annotated[Count, about("tries an answer gets; the last of several is free [paper algorithm 1, n_bdhs]")] = 5

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.eps is None and recommended_eps(self.encoder) is None:
            return self.refuse([f"found no eps, and encoder {self.encoder!r} has none of its own; accepted: eps set"])
        return self

    @property
    def threshold(self) -> float:
        """`eps`, or the encoder's own."""
        eps = recommended_eps(self.encoder) if self.eps is None else self.eps
        assert eps is not None, "refused when the recipe was read"
        return eps


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


View = Masked | Noised | Blank | Cropped | Swapped | BadPrompt | Clean
Guidance = SentenceGuided | TokenForced | Free | Rewrite


class Negatives(Node):
    """How rejected answers are made: view x guidance x check [paper section 3.4]."""

    view: Annotated[View, Field(discriminator="kind"), about("what the model sees of the image")] = Masked()
    guidance: Annotated[Guidance, Field(discriminator="kind"), about("how the answer follows the reference")] = (
        SentenceGuided()
    )
    check: Annotated[Dissimilar | Always, Field(discriminator="kind"), about("when an answer is kept")] = Dissimilar()
    decoding: Annotated[Sampling, about("how tokens are drawn")] = Sampling()
    batch_size: Annotated[Count, about("prompts completed at once; changes speed and memory only")] = 16

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not isinstance(self.guidance, Rewrite):
            return self
        found = []
        if not isinstance(self.view, Clean):
            found.append(f"found view {self.view.kind} with guidance rewrite, which ignores it; accepted: clean")
        if self.decoding != Sampling():
            found.append("found decoding with guidance rewrite, which has its own; accepted: none")
        return self.refuse(found)
