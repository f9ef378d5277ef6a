"""The policy: a vision-language model that scores groups of answers and samples new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from verisight.models import scoring
from verisight.models.decode import Branch, Grown, Stop, Tree, batches, decode
from verisight.models.encoding import Encoder
from verisight.models.families import Family, check_config
from verisight.models.forced import beginnings, draw_forced
from verisight.models.hiding import Sight
from verisight.models.network import Network
from verisight.models.planting import plant
from verisight.models.prefix import install
from verisight.models.scoring import Scores, States
from verisight.models.stores import Look, Recent, Store, chunks
from verisight.models.tuning import LoraSettings, is_projector, trainable
from verisight.models.vision import Vision
from verisight.types import Decoding, Group, Prompt, Sampled, UserError

Scoring = Literal["grouped", "padded"]


class Policy:
    """A Hugging Face VLM with its processor.

    Image and prompt belong to a group once; `score` returns one number per answer. The vision tower is frozen unless
    LoRA was asked for there, and nothing trains before `tune`. No part of the model is ever in training mode: dropout
    never happens.
    """

    def __init__(self, model: Any, processor: Any, *, scoring: Scoring = "grouped") -> None:
        self.model = model.eval().requires_grad_(False)
        self.encoder = Encoder(processor)
        self.family: Family = check_config(self.core.config.to_dict())
        self.scoring: Scoring = scoring
        self.vision = Vision(self.encoder, self.family, Recent())
        self._checkpointing = False
        install(self.core)

    def checkpoint_gradients(self) -> None:
        """Keep only layer inputs for the backward pass of `score` and compute the rest again (Chen et al. 2016).

        Sampling is not touched.
        """
        self._language.activation_checkpointing_enable({"use_reentrant": False})
        self._checkpointing = True

    def keep_looks(self, store: Store) -> None:
        """Keep what the frozen vision tower makes of pictures in `store`."""
        assert self.vision.frozen, "a tower that trains makes something else every step"
        self.vision = Vision(self.encoder, self.family, store)

    def tune(self, lora: LoraSettings | None, *, train_projector: bool, base_name: str = "", seed: int = 0) -> None:
        """Choose what trains, in float32: a LoRA adapter, or (None) the whole language model; the projector if wanted.

        An adapter the model was opened with becomes part of its weights first.
        `base_name` is the model an adapter folder names as its base; `seed` draws the adapter's first weights.
        """
        self.model = trainable(self.model, self.family, lora, train_projector=train_projector, seed=seed)
        if lora is not None:
            self.model.peft_config["default"].base_model_name_or_path = base_name
        frozen = not any(f".{self.family.tower}." in name and not self.is_projector(name) for name in self.trainable())
        self.vision = Vision(self.encoder, self.family, Recent(), frozen)

    def is_projector(self, name: str) -> bool:
        """Whether a parameter belongs to the vision-to-language projector."""
        return is_projector(name, self.family)

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter sits on the model, to be trained or as it was opened."""
        return hasattr(self.model, "peft_config")

    @property
    def core(self) -> Any:
        """The Hugging Face model itself, adapters (if any) sitting in its layers."""
        return self.model.get_base_model() if self.has_adapter else self.model

    @property
    def network(self) -> Network:
        """The core with the names of its parts."""
        return Network(self.core, self.family)

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def trainable(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs of every answer, images and prompts given. Gradients follow the caller's mode.

        Raises:
            UserError: a prompt and one of its answers are longer than what the model was built for.
        """
        return self.log_probs(self.read(groups))

    def log_probs(self, states: States) -> Scores:
        """Log-probs of what was read."""
        with self._mixed_precision():
            return scoring.scores(self.network, states)

    def entropy(self, states: States) -> Tensor:
        """(tokens of all answers,) entropy of what could stand in each token's place, nats."""
        with self._mixed_precision():
            return self.network.entropy(states.before)

    def read(self, groups: Sequence[Group]) -> States:
        """Read every answer behind its image and prompt. Gradients follow the caller's mode.

        Image and prompt are forwarded once per group, however many answers it has (`scoring="padded"`: once per
        answer, in rows padded to one length; the reference implementation).

        Raises:
            UserError: a prompt and one of its answers are longer than what the model was built for.
        """
        assert groups, "nothing to score"
        looks = self._look([group.prompt for group in groups])
        answers = [[self.encoder.answer(group.prompt, answer) for answer in group.answers] for group in groups]
        for group, look, encoded in zip(groups, looks, answers, strict=True):
            self._check_length(group.prompt, len(look.ids) + max(len(answer.ids) for answer in encoded))
        with self._layers_checkpointed(), self._mixed_precision():
            features = self.vision.project(self.core, looks)
            read = scoring.grouped if self.scoring == "grouped" else scoring.padded
            return read(self.network, looks, features, answers)

    def sample(
        self, prompts: Sequence[Prompt], *, decoding: Decoding, seed: int, num: int = 1,
        sights: Sequence[Sight] | None = None, batch_size: int = 64,
    ) -> list[list[Sampled]]:  # fmt: skip
        """`num` answers to every prompt, which is read once. At most `batch_size` answers are drawn at a time."""
        branches = [_branches(prompt, [()] * num) for prompt in prompts]
        return self._draw(prompts, branches, decoding, seed, sights, batch_size, after=frozenset())

    def branch(
        self, prompts: Sequence[Prompt], prefixes: Sequence[Sequence[Sequence[int]]], *, decoding: Decoding,
        seed: int, lines: Sequence[Sequence[int]] | None = None, sights: Sequence[Sight] | None = None,
        batch_size: int = 64,
    ) -> list[list[Sampled]]:  # fmt: skip
        """Continue given answer beginnings (token ids) of every prompt to the end of their sentence.

        A sentence ends after the first token that holds a full stop (that of "3." is read over: it may be "3.5"),
        exclamation or question mark, or at the end token. `lines`: how many line breaks it may hold; one more ends it,
        too. Prompt and what the beginnings share are read once.
        """
        counts = lines if lines is not None else [None] * len(prompts)
        branches = [_branches(*one) for one in zip(prompts, prefixes, counts, strict=True)]
        return self._draw(prompts, branches, decoding, seed, sights, batch_size, after=self.sentence_ends)

    def forced(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, decoding: Decoding, seed: int,
        sights: Sequence[Sight] | None = None, batch_size: int = 16,
    ) -> list[Sampled]:  # fmt: skip
        """Teacher-forced answers: token t is drawn behind the first t true tokens of the given answer.

        As many tokens as it has, unless an end token is drawn, where the answer ends. Never `truncated`. Only
        temperature and top_p of `decoding` count. `batch_size` prompts and answers are read in one forward.
        """
        true = [self.encoder.text_tokens(prompt, text)[0] for prompt, text in zip(prompts, answers, strict=True)]
        stop, drawn = Stop(self.encoder.end_ids, self._never_drawn), []
        for start in range(0, len(prompts), batch_size):
            some = range(len(prompts))[start : start + batch_size]
            pieces = [(p, _branches(prompts[p], beginnings(true[p]))) for p in some]
            trees = self._plant(pieces, prompts, sights)
            for (p, _), tree in zip(pieces, trees, strict=True):
                self._check_length(prompts[p], len(tree.ids) + len(true[p]))
            with self._mixed_precision():
                drawn += draw_forced(self.network, trees, decoding=decoding, seed=seed, stop=stop)
        return [self._sampled(Grown(ids, False, None), ()) for ids in drawn]

    @cached_property
    def sentence_ends(self) -> frozenset[int]:
        """Vocabulary ids that close a sentence. By the letter of algorithm 1 that of a "Mr." does, too."""
        return self.encoder.ids_containing(".!?。！？｡")  # noqa: RUF001

    @cached_property
    def line_breaks(self) -> frozenset[int]:
        """Vocabulary ids that hold a line break."""
        return self.encoder.ids_containing("\n\r")

    @cached_property
    def _never_drawn(self) -> list[int]:
        """Ids that are no text and no end, and rows of the output layer beyond the vocabulary."""
        beyond = range(len(self.encoder.tokenizer), len(self.core.get_output_embeddings().weight))
        return [*sorted(self.encoder.special_ids - self.encoder.end_ids), *beyond]

    def num_image_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """How many image vectors the language model sees for each prompt."""
        return [look.num_image_tokens for look in self._look(prompts)]

    def save(self, folder: Path) -> None:
        """Write the adapter, or the whole model, with its processor: what Hugging Face reads, safetensors only."""
        if self.has_adapter:  # left to itself peft asks the hub whether the vocabulary grew
            self.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        else:
            self.model.save_pretrained(folder)
        self.encoder.processor.save_pretrained(folder)

    @property
    def autocast(self) -> torch.dtype | None:
        """Bfloat16 where frozen bfloat16 weights meet trained float32 ones; None where all are of one kind."""
        kinds = {p.dtype for p in self.model.parameters()}
        return torch.bfloat16 if kinds == {torch.bfloat16, torch.float32} else None

    @property
    def _language(self) -> Any:
        return self.core.model.get_submodule(self.family.language)

    def _check_length(self, prompt: Prompt, num_tokens: int) -> None:
        longest = self.core.config.get_text_config().max_position_embeddings
        if num_tokens > longest:
            raise UserError(
                f"row {prompt.uid}: found {num_tokens} tokens of prompt and answer, accepted: up to {longest}, which "
                "the model was built for; fewer or smaller pictures, or a shorter answer"
            )

    def _look(self, prompts: Sequence[Prompt]) -> list[Look]:
        with self._mixed_precision():
            return self.vision.look(self.core, prompts)

    def _mixed_precision(self) -> AbstractContextManager[Any]:
        dtype = self.autocast
        return nullcontext() if dtype is None else torch.autocast(self.core.device.type, dtype=dtype)

    @contextmanager
    def _layers_checkpointed(self) -> Iterator[None]:
        """Hugging Face layers checkpoint in training mode only: their own flag is set, nobody's below them."""
        layers = self._language.layers if self._checkpointing and torch.is_grad_enabled() else ()
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    def _draw(
        self, prompts: Sequence[Prompt], branches: Sequence[Sequence[Branch]], decoding: Decoding, seed: int,
        sights: Sequence[Sight] | None, batch_size: int, after: frozenset[int],
    ) -> list[list[Sampled]]:  # fmt: skip
        breaks = self.line_breaks if after else frozenset[int]()
        stop = Stop(self.encoder.end_ids, self._never_drawn, after, decoding.stop, self.encoder.text, breaks)
        pieces = [
            (p, branches[p][start : start + batch_size])
            for p in range(len(prompts))
            for start in range(0, len(branches[p]), batch_size)
        ]
        rows_of: list[list[Sampled]] = [[] for _ in prompts]
        for chunk in chunks(pieces, [len(some) for _, some in pieces], batch_size):
            trees = self._plant(chunk, prompts, sights)
            drawn: dict[int, list[Grown]] = {}
            for members in batches(self.network, trees, max_new_tokens=decoding.max_new_tokens):
                with self._mixed_precision():
                    some = decode(self.network, [trees[i] for i in members], decoding=decoding, seed=seed, stop=stop)
                drawn |= zip(members, some, strict=True)
            for i, (p, _) in enumerate(chunk):
                rows_of[p] += [self._sampled(one, decoding.stop) for one in drawn[i]]
        return rows_of

    def _plant(
        self, pieces: Sequence[tuple[int, Sequence[Branch]]], prompts: Sequence[Prompt], sights: Sequence[Sight] | None
    ) -> list[Tree]:
        """Pieces (prompt, its answers) as trees."""
        looks = self._look([prompts[p] for p, _ in pieces])
        with torch.inference_mode(), self._mixed_precision():
            features = self.vision.project(self.core, looks)
        trees = []
        for (p, branches), look, one in zip(pieces, looks, features, strict=True):
            sight = sights[p] if sights is not None else Sight()
            trees.append(plant(self.network, look, one, sight=sight, branches=branches))
        return trees

    def _sampled(self, grown: Grown, strings: Sequence[str]) -> Sampled:
        text = self.encoder.text(grown.ids)
        end = min((text.index(string) for string in strings if string in text), default=len(text))
        return Sampled(text[:end].strip(), tuple(grown.ids), grown.truncated, grown.end)


def _branches(
    prompt: Prompt, prefixes: Sequence[Sequence[int]], lines: Sequence[int | None] | None = None
) -> list[Branch]:
    """A prompt's answers from their given beginnings, named by their number."""
    counts = lines or [None] * len(prefixes)
    return [Branch(ids, f"{prompt.uid}/{k}", num) for k, (ids, num) in enumerate(zip(prefixes, counts, strict=True))]
