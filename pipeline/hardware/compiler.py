"""PyTorch's compiler, which takes longer to import than a small network to train."""

from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer
from torch.utils import flop_counter

_EXEMPT: Iterable[Callable[..., Any]] = (
    Optimizer.add_param_group,
    Optimizer.load_state_dict,
    Optimizer.state_dict,
    Optimizer.zero_grad,
    flop_counter._FlopCounterMode.__torch_dispatch__,
)


def spare_import() -> None:
    """Let `Muon` and the counter of operations work without the compiler, whose import takes 1.7 s.

    These methods are exempt from compilation, and PyTorch marks them as such at their first call. It imports the
    compiler for that, whether or not anything is compiled (`torch._compile._disable_dynamo`). Here they count as
    marked; nothing that the project compiles calls them. `step` of PyTorch's own optimisers imports it in any case.
    """
    for function in _EXEMPT:
        exempted: Any = getattr(function, "__wrapped__", function)
        exempted.__dynamo_disable = exempted
