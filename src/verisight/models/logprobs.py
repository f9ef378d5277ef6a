"""Log-probs of given tokens without a logit for every position and word at once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 1 << 25  # logits made at once, float32: 128 MiB


def token_log_probs(hidden: Tensor, targets: Tensor, head: Tensor, bias: Tensor | None = None) -> Tensor:
    """Log p(target | hidden) of every token. Exact; logits are made in chunks, and again for the gradient.

    hidden: (tokens, width). targets: (tokens,) int64. head: (vocabulary, width). bias: (vocabulary,) or None.
    Returns (tokens,) float32 (float64 for a float64 model), in nats. The head's gradient is only made if it trains.
    """
    chunk = max(1, CHUNK_ELEMENTS // head.shape[0])
    if len(hidden) <= chunk:
        return _logits(hidden, head, bias).log_softmax(dim=-1).gather(-1, targets[:, None]).squeeze(-1)
    if torch.is_autocast_enabled(hidden.device.type):
        kind = torch.get_autocast_dtype(hidden.device.type)
        hidden, head, bias = hidden.to(kind), head.to(kind), None if bias is None else bias.to(kind)
    out: Tensor = _ChunkedLogProbs.apply(hidden, targets, head, bias, chunk)
    return out


def token_entropy(hidden: Tensor, head: Tensor, bias: Tensor | None = None) -> Tensor:
    """Entropy of what comes next at every state, (tokens,) in nats; logits in chunks, and again for the gradient.

    Arguments and dtype as of `token_log_probs`. Between 0 and the log of the vocabulary's size.
    """
    chunk = max(1, CHUNK_ELEMENTS // head.shape[0])
    parts = hidden.split(chunk)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(_entropy, part, head, bias, use_reentrant=False) for part in parts])
    return torch.cat([_entropy(part, head, bias) for part in parts])


def _entropy(hidden: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    logp = _logits(hidden, head, bias).log_softmax(dim=-1)
    return -(logp.exp() * logp).sum(dim=-1)


def _logits(hidden: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
    """Float32, or float64 where the model is."""
    logits = F.linear(hidden, head, bias)
    return logits if logits.dtype == torch.float64 else logits.float()


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class _ChunkedLogProbs(torch.autograd.Function):
    """The gradient of log p(t) with respect to the logits is onehot(t) - p, so p is all that is made again."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Tensor, bias: Tensor | None, chunk: int) -> Tensor:
        ctx.save_for_backward(hidden, targets, head, bias)
        ctx.chunk = chunk
        out = torch.empty(len(hidden), dtype=_at_least_float32(hidden), device=hidden.device)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = _logits(hidden[part], head, bias)
            out[part] = logits.gather(-1, targets[part, None]).squeeze(-1) - logits.logsumexp(dim=-1)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None, None]:
        hidden, targets, head, bias = ctx.saved_tensors
        needs_hidden, _, needs_head, needs_bias, _ = ctx.needs_input_grad
        to_hidden = torch.empty_like(hidden) if needs_hidden else None
        to_head = torch.zeros_like(head, dtype=_at_least_float32(head)) if needs_head else None
        to_bias = torch.zeros_like(bias, dtype=_at_least_float32(bias)) if needs_bias else None
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            to_logits = _logits(hidden[part], head, bias).softmax(dim=-1).neg_()
            to_logits.scatter_add_(-1, targets[part, None], torch.ones_like(to_logits[:, :1]))
            to_logits.mul_(grads[0][part, None])
            if to_hidden is not None:
                to_hidden[part] = to_logits.to(head.dtype) @ head
            if to_head is not None:
                to_head += to_logits.to(hidden.dtype).T @ hidden[part]
            if to_bias is not None:
                to_bias += to_logits.sum(dim=0)
        return (
            to_hidden, None, None if to_head is None else to_head.to(head.dtype),
            None if to_bias is None else to_bias.to(bias.dtype), None,
        )  # fmt: skip
