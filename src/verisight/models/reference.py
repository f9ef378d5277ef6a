"""The frozen starting model that aligned answers are compared with: three ways to the same log-probs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch

from verisight.data.files import append_jsonl, read_jsonl
from verisight.models.fingerprint import reference_fingerprint
from verisight.models.policy import Policy
from verisight.models.ranks import ranks
from verisight.models.scoring import Scores
from verisight.progress import Advance
from verisight.types import Group, UserError

FORMAT = 1  # of the file of stored log-probs
_REMEDY = "delete the file, or name another folder as train.cache"


class Reference:
    """The frozen starting model, as the policy without its adapter or as a copy taken now. Only scores.

    It shares the policy's looks at pictures: image files are read and passed through the tower once for both.
    """

    def __init__(self, policy: Policy, *, mode: Literal["adapter_off", "frozen_copy"]) -> None:
        assert mode == "frozen_copy" or policy.has_adapter, "no adapter to switch off"
        self._mode = mode
        self._trained = policy
        self._policy = policy if mode == "adapter_off" else _frozen_copy(policy)

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs under the reference, without gradients."""
        self._policy.to(self._trained.core.device)  # the loop may have moved the policy since the copy was made
        if self._trained.vision.frozen:
            self._policy.vision = self._trained.vision  # the one tower's looks, wherever the policy keeps them now
        with torch.no_grad(), self._without_adapter():
            return self._policy.score(groups)

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        if self._mode == "frozen_copy":
            yield
            return
        with self._policy.model.disable_adapter():
            yield


def _frozen_copy(policy: Policy) -> Policy:
    """A second model as the policy is now. What does not train is one for both, and so are the tower's looks."""
    shared = {id(weight): weight for weight in policy.model.parameters() if not weight.requires_grad}
    copied = deepcopy(policy.model, shared).requires_grad_(False)
    return Policy(copied, policy.encoder.processor, scoring=policy.scoring)


class StoredReference:
    """Reference log-probs from a file that `store_reference` wrote: exactly the numbers that were stored.

    A group is found by what was scored (rendered prompt, bytes of its pictures, ids of its answers), never by name.
    Made by `open_reference` and `store_reference`, which check that the file is the policy's.
    """

    def __init__(self, policy: Policy, file: Path, scores: Mapping[str, Scores]) -> None:
        self._policy = policy
        self._file = file
        self._scores = scores

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs as they were stored.

        Raises:
            UserError: a group that was not stored as it is now.
        """
        found = []
        for group in groups:
            scores = self._scores.get(group_key(self._policy, group))
            if scores is None:
                raise UserError(
                    f"{self._file}: holds no reference log-probs of row {group.prompt.uid!r} as it is now (its text, "
                    "answers or pictures are not those that were scored); accepted: the rows the file was made from"
                )
            found.append(scores)
        device = self._policy.core.device
        return Scores(*(torch.cat(parts).to(device) for parts in zip(*found, strict=True)))


def open_reference(policy: Policy, file: Path) -> StoredReference:
    """The file's log-probs, for the policy as it stands before training.

    Raises:
        UserError: no such file, a broken line, or another model, processor or version of the format wrote it.
    """
    return StoredReference(policy, file, _read(file, reference_fingerprint(policy)))


def store_reference(
    policy: Policy, groups: Sequence[Group], file: Path, *, batch_size: int, advance: Advance
) -> StoredReference:
    """Score groups under the starting model, before any training, and append them to `file`.

    Batches that the file holds are not scored again: a killed run goes on where it was and ends with the same file,
    and runs may share one, one after another. `advance` counts groups.

    Raises:
        UserError: the file was written for another model or is broken.
    """
    fingerprint = reference_fingerprint(policy)
    if ranks().main and (not file.exists() or not read_jsonl(file)):  # nothing, or half a first line
        append_jsonl(file, {"format": FORMAT, "fingerprint": fingerprint})
    ranks().wait()
    stored = _read(file, fingerprint)
    ranks().wait()  # before anyone goes on writing
    unique = {group_key(policy, one): index for index, one in enumerate(groups)}
    advance(len(groups) - len(unique))
    keys = list(unique)
    for start in range(0, len(keys), batch_size):
        batch = keys[start : start + batch_size]
        if not stored.keys() >= set(batch):  # a batch that a kill tore is scored whole: rounding depends on its rows
            told = ranks().share(batch, lambda some: _starting_scores(policy, [groups[unique[key]] for key in some]))
            for key, scores in zip(batch, told, strict=True):
                if key not in stored and ranks().main:
                    values = {name: tensor.tolist() for name, tensor in scores._asdict().items()}
                    append_jsonl(file, {"group": key, "uid": groups[unique[key]].prompt.uid, **values})
        advance(len(batch))
    ranks().wait()
    return StoredReference(policy, file, _read(file, fingerprint))


def group_key(policy: Policy, group: Group) -> str:
    """Hex SHA-256 of what is scored: the prompt's key (rendered text, bytes of pictures) and the answers' tokens."""
    answers = [policy.encoder.answer(group.prompt, answer) for answer in group.answers]
    parts = [policy.encoder.key(group.prompt), [[answer.ids, answer.supervised] for answer in answers]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _starting_scores(policy: Policy, groups: Sequence[Group]) -> list[Scores]:
    """One `Scores` a group, on the CPU, under the policy as it is before training."""
    with torch.no_grad():
        scores = Reference(policy, mode="adapter_off").score(groups) if policy.has_adapter else policy.score(groups)
    scores = Scores(*(tensor.cpu() for tensor in scores))
    answers = [len(group.answers) for group in groups]
    tokens = [int(counts.sum()) for counts in scores.num_tokens.split(answers)]
    parts = zip(scores.logp_sum.split(answers), scores.num_tokens.split(answers), scores.token_logp.split(tokens),
                strict=True)  # fmt: skip
    return [Scores(*part) for part in parts]


def _read(file: Path, fingerprint: dict[str, str]) -> dict[str, Scores]:
    """What the file holds, by group. Of a group that is there twice, the first."""
    header, *rows = read_jsonl(file) or [{}]
    _check_header(file, header, fingerprint)
    stored: dict[str, Scores] = {}
    for number, row in enumerate(rows, start=2):
        try:
            scores = Scores(
                torch.tensor(row["logp_sum"], dtype=torch.float32),
                torch.tensor(row["num_tokens"], dtype=torch.int64),
                torch.tensor(row["token_logp"], dtype=torch.float32),
            )
            whole = len(scores.logp_sum) == len(scores.num_tokens) and len(scores.token_logp) == scores.num_tokens.sum()
            stored.setdefault(str(row["group"]), scores)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: line {number}: not what was written ({error!r}); {_REMEDY}") from error
        if not whole:
            raise UserError(f"{file}: line {number}: its counts do not fit one another; {_REMEDY}")
    return stored


def _check_header(file: Path, header: dict[str, Any], fingerprint: dict[str, str]) -> None:
    if header.get("format") != FORMAT or not isinstance(header.get("fingerprint"), dict):
        raise UserError(f"{file}: line 1: no header of stored reference log-probs of format {FORMAT}; {_REMEDY}")
    found = header["fingerprint"]
    if changed := [name for name in fingerprint if found.get(name) != fingerprint[name]]:
        was = "; ".join(f"{name} {found.get(name)}, now {fingerprint[name]}" for name in changed)
        raise UserError(f"{file}: reference log-probs of another {' and '.join(changed)} (stored: {was}); {_REMEDY}")
