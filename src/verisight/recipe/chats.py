"""Who writes and who judges: models over HTTP, models on this machine, the pocket world's oracle."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verisight.recipe.base import Count, File, Fraction, Node, NonNegative, Positive, Pretrained, Switch, about


class Http(Node):
    """A model behind an OpenAI-compatible endpoint. Answers are cached in the run folder, costs written there."""

    kind: Literal["http"] = "http"
    url: Annotated[str, Field(min_length=1), about("address of the endpoint, such as http://localhost:8000/v1")]
    model: Annotated[str, Field(min_length=1), about("name of the model there")]
    key_env: Annotated[str | None, about("environment variable that holds the key; empty: none is sent")] = None
    max_new_tokens: Annotated[Count, about("longest reply, tokens")] = 512
    temperature: Annotated[NonNegative, about("divides the logits; 0 takes the likeliest token")] = 0.0
    timeout: Annotated[Positive, about("seconds to connect, and between two pieces of a reply")] = 120.0
    retries: Annotated[int, Field(ge=0, strict=True), about("further tries of a request that failed")] = 5
    requests_per_minute: Annotated[Positive | None, about("most requests a minute; empty: no limit")] = None
    concurrency: Annotated[Count, about("requests under way at once")] = 4
    served_as: Annotated[tuple[str, ...], about("further names under which the model may answer")] = ()
    tokens_field: Annotated[
        Literal["max_tokens", "max_completion_tokens"], about("what the server calls the limit of new tokens")
    ] = "max_tokens"
    prompt_price: Annotated[NonNegative | None, about("price of a million tokens asked, for the ledger")] = None
    completion_price: Annotated[NonNegative | None, about("price of a million tokens written, for the ledger")] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.prompt_price is None) != (self.completion_price is None):
            found = f"found prompt_price {self.prompt_price} and completion_price {self.completion_price}"
            return self.refuse([f"{found}; accepted: both or none"])
        return self


class Local(Node):
    """A vision-language model on this machine that answers in words."""

    kind: Literal["local"] = "local"
    path: Annotated[Pretrained, about("model folder or hub id")]
    dtype: Annotated[Literal["float32", "bfloat16"], about("number format of the weights")] = "bfloat16"
    max_new_tokens: Annotated[Count, about("longest reply, tokens")] = 512
    temperature: Annotated[NonNegative, about("divides the logits; 0 takes the likeliest token")] = 0.0
    trust_remote_code: Annotated[Switch, about("run Python code that comes with the model")] = False


class Scribe(Node):
    """The pocket world's oracle in the writer's part: it knows the scenes and plants errors in what is said of them."""

    kind: Literal["scribe"] = "scribe"
    scenes: Annotated[File, about("pocket scenes JSON of the pictures")]
    noise: Annotated[Fraction, about("how far it errs: half of this share comes back with other words only")] = 0.0


class Oracle(Node):
    """The pocket world's oracle: counts what is untrue in each answer [paper section 3.2, the annotator]."""

    kind: Literal["oracle"] = "oracle"
    scenes: Annotated[File, about("pocket scenes JSON of the pictures")]
    noise: Annotated[Fraction, about("how far it errs: 0 never, 1 knows nothing")] = 0.0


class Likelihood(Node):
    """A local model that judges by how likely it finds either verdict, given picture, question and both answers."""

    kind: Literal["likelihood"] = "likelihood"
    path: Annotated[Pretrained, about("model folder, hub id or `pocket`")]
    dtype: Annotated[Literal["float32", "bfloat16"], about("number format of the weights")] = "bfloat16"
    both_orders: Annotated[Switch, about("ask with the answers in both orders and take the mean")] = True
    tie_margin: Annotated[NonNegative, about("verdicts so close in log-prob are a tie, nats")] = 0.0
    trust_remote_code: Annotated[Switch, about("run Python code that comes with the model")] = False


class Rewarded(Node):
    """A reward model: the answer with the larger reward is the better one [paper eq. 1]."""

    kind: Literal["reward"] = "reward"
    path: Annotated[Pretrained, about("what training with objective reward wrote")]
    dtype: Annotated[Literal["float32", "bfloat16"], about("number format of the weights")] = "bfloat16"
    tie_margin: Annotated[NonNegative, about("rewards so close are a tie")] = 0.0


class Judge(Node):
    """A vision-language model that sees the picture and says in words which answer is better [paper section 3.2]."""

    kind: Literal["judge"] = "judge"
    chat: Annotated[Http | Local, Field(discriminator="kind"), about("the model that judges")]
    both_orders: Annotated[Switch, about("ask with the answers in both orders; where they disagree it is a tie")] = True


class Rewrite(Node):
    """A language model rewrites the reference into a plausible wrong answer [paper section 4, VLFeedbackCorrupted]."""

    kind: Literal["rewrite"] = "rewrite"
    chat: Annotated[Http | Local | Scribe, Field(discriminator="kind"), about("the model that rewrites")]
    retries: Annotated[
        int, Field(ge=0, strict=True), about("further tries where it refuses, changes nothing or writes something else")
    ] = 2
    shows_image: Annotated[Switch, about("show it the picture too; the paper's sees the text alone")] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.chat, Scribe) and not self.shows_image:
            return self.refuse(["found a scribe that is not shown the picture it knows; accepted: shows_image true"])
        return self


Annotator = Annotated[Oracle | Likelihood | Rewarded | Judge, Field(discriminator="kind")]
