"""Models inside lmms-eval: `lmms_eval --model verisight --model_args pretrained=FOLDER`, adapters included.

A thin bridge for the optional package lmms-eval (0.7 or later), which finds it through `lmms_eval_plugin`.
Generation goes through `Policy.sample`, as it does in `verisight eval`; scores are lmms-eval's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.model import lmms  # pyrefly: ignore[missing-import]
from PIL import Image

from verisight import recipe
from verisight.build.models import open_model
from verisight.models.policy import Policy
from verisight.types import Decoding, ImageRef, Prompt, UserError

_PLACEHOLDER = "<image>"
_KNOWN = {"max_new_tokens", "temperature", "top_p", "do_sample", "until", "num_beams"}
_MAX_NEW_TOKENS = 1024


class VerisightModel(lmms):
    """Any model folder, PEFT adapter, hub id or `pocket`, as lmms-eval wants it.

    Args:
        pretrained: what `verisight eval` takes.
        dtype: "float32" or "bfloat16".
        batch_size: requests answered at a time.
        trust_remote_code: run Python code that comes with the model.
        seed: of tasks that sample.
    """

    is_simple = True

    def __init__(
        self, pretrained: str, dtype: str = "bfloat16", batch_size: int | str = 1, trust_remote_code: bool = False,
        seed: int = 0, device: str | None = None, max_batch_size: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        del device, max_batch_size  # lmms-eval passes them to every model; accelerate knows the device
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        settings = {"path": pretrained, "dtype": dtype, "trust_remote_code": trust_remote_code}
        self._policy: Policy = open_model(recipe.Model.model_validate(settings))
        self._batch_size, self._seed = int(batch_size), int(seed)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One answer a request, in order. Requests with the same settings share batches.

        Raises:
            UserError: a setting that this bridge doesn't know, beams, or a visual that is no picture.
        """
        prompts = [self._prompt(at, request.args) for at, request in enumerate(requests)]
        groups: dict[Decoding, list[int]] = {}
        for at, request in enumerate(requests):
            groups.setdefault(decoding(request.args[1]), []).append(at)
        answers = [""] * len(requests)
        for settings, places in groups.items():
            for start in range(0, len(places), self._batch_size):
                batch = places[start : start + self._batch_size]
                drawn = self._policy.sample([prompts[at] for at in batch], decoding=settings, seed=self._seed)
                for at, one in zip(batch, drawn, strict=True):
                    answers[at] = one[0].text
                    self.cache_hook.add_partial("generate_until", requests[at].args, answers[at])
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: the benchmarks of this field generate."""
        raise NotImplementedError("verisight in lmms-eval generates; tasks of type loglikelihood are not offered")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise NotImplementedError("verisight in lmms-eval answers single turns; multi-round tasks are not offered")

    def _prompt(self, at: int, args: Sequence[Any]) -> Prompt:
        context, _, visual, doc_id, task, split = args
        found = visual(self.task_dict[task][split][doc_id]) or []
        images = tuple(_image(one, task) for one in found)
        return Prompt(f"{task}/{split}/{doc_id}/{at}", images, context.replace(_PLACEHOLDER, "").strip())


def decoding(settings: Mapping[str, Any]) -> Decoding:
    """A task's generation_kwargs. A temperature counts only with do_sample, as in transformers.

    Raises:
        UserError: beams, or a setting that is not known here.
    """
    unknown = sorted(set(settings) - _KNOWN)
    if unknown:
        raise UserError(f"generation_kwargs: found {unknown[0]}; accepted: {', '.join(sorted(_KNOWN))}")
    if (settings.get("num_beams") or 1) != 1:
        raise UserError(f"generation_kwargs: found num_beams {settings['num_beams']}; accepted: 1")
    until = settings.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(until)
    temperature = float(settings.get("temperature") or 0.0)
    sampled = bool(settings.get("do_sample", temperature > 0)) and temperature > 0
    return Decoding(
        int(settings.get("max_new_tokens") or _MAX_NEW_TOKENS), temperature if sampled else 0.0,
        float(settings.get("top_p") or 1.0) if sampled else 1.0, tuple(one for one in stop if one),
    )  # fmt: skip


def _image(visual: Any, task: str) -> ImageRef:
    if not isinstance(visual, Image.Image):
        raise UserError(f"{task}: found a visual of type {type(visual).__name__}; accepted: pictures")
    buffer = BytesIO()
    visual.convert("RGB").save(buffer, format="PNG")
    data = buffer.getvalue()
    return ImageRef(data=data, sha256=hashlib.sha256(data).hexdigest())
