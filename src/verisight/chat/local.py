"""Chat with a model on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from verisight.models.policy import Policy
from verisight.types import Decoding, Prompt, Reply, Request

_GREEDY = Decoding(256, temperature=0.0)


class LocalChat:
    """A policy as a chat model (`types.Chat`).

    Chat templates of many vision-language models have no system turn: a request's system text is put in front of its
    text, an empty line between them. What is drawn depends on `seed` and the request's uid, not on its batch.
    """

    def __init__(
        self, policy: Policy, *, name: str, decoding: Decoding = _GREEDY, seed: int = 0, batch_size: int = 16
    ) -> None:
        self._policy, self._name = policy, name
        self._decoding, self._seed, self._batch_size = decoding, seed, batch_size

    @property
    def name(self) -> str:
        """The model."""
        return self._name

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply each, in order. No text before the end is a problem.

        Raises:
            UserError: a picture that cannot be used, or a request longer than what the model was built for.
        """
        prompts = [
            Prompt(one.uid, one.images, f"{one.system}\n\n{one.text}" if one.system else one.text) for one in requests
        ]
        drawn = self._policy.sample(prompts, decoding=self._decoding, seed=self._seed, batch_size=self._batch_size)
        return [Reply(one.text, "" if one.text else "the model said nothing") for (one,) in drawn]
