"""What a piece of code costs: floating-point operations, bytes kept for the backward pass, memory of the process."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def gflop(work: Callable[[], Any], *, halve_causal: bool = False) -> float:
    """Billions of operations of `work`, by `FlopCounterMode`.

    It does not know the CPU's fused attention, which is added by torch's own formula for the other fused kernels:
    2 products forward, 5 backward, all queries by all keys, even where a causal kernel skips half of them
    (`halve_causal`: half of those for causal calls).
    """
    aten = torch.ops.aten

    def forward(q: Any, k: Any, v: Any, _dropout: float = 0.0, is_causal: bool = False, **__: Any) -> int:
        return sdpa_flop_count(q, k, v) // (2 if halve_causal and is_causal else 1)

    def backward(grad: Any, q: Any, k: Any, v: Any, _o: Any, _l: Any, _p: float, is_causal: bool, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, q, k, v) // (2 if halve_causal and is_causal else 1)

    mapping: dict[Any, Any] = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops() / 1e9


@contextmanager
def saved_bytes(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Collects the bytes of every storage that is kept for the backward pass and is not a parameter's."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def resident_mb() -> float:
    """Main memory this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """The most main memory this process ever held (Linux).

    Not `ru_maxrss`: that begins at what the parent process held.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
