"""Feature stages: the parts of a network whose outputs are feature maps (N, C, H, W)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from pipeline.errors import InspectionError
from pipeline.models.common.build import show_black_image


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose outputs are a network's feature maps, in order, by the names of their stages.

    They are the network's own `feature_stages`, if it has them. Otherwise the network is run once. Its parts are its
    children, each `nn.Sequential` among them replaced by its own children; if only one child has weights, the parts
    are that child's. A part with weights begins a stage, which is named after it; normalisation, activation and
    pooling that run after it belong to the stage, as long as their outputs are feature maps.

    Raises:
        InspectionError: no part of the network has feature maps as output.
    """
    names = {module: name for name, module in model.named_modules()}
    own: Sequence[nn.Module] | None = getattr(model, "feature_stages", None)
    found = {names[module]: module for module in own} if own is not None else _found(model, names)
    if not found:
        raise InspectionError("this network has no feature maps: none of its parts has an output (N, C, H, W)")
    return found


@contextmanager
def watched(parts: Mapping[str, nn.Module], listener: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `listener(name, output)` whenever one of some modules runs inside the block."""
    with ExitStack() as hooks:
        for name, part in parts.items():
            hook = part.register_forward_hook(lambda _part, _inputs, output, name=name: listener(name, output))
            hooks.enter_context(hook)
        yield


def is_map(output: object) -> bool:
    """Say whether a module's output is a batch of feature maps (N, C, H, W) of more than one pixel."""
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1


def _found(model: nn.Module, names: Mapping[nn.Module, str]) -> dict[str, nn.Module]:
    """Return the stages of a network that does not name them."""
    parts = {names[part]: part for part in _parts(model)}
    ran: list[tuple[str, bool]] = []
    with watched(parts, lambda name, output: ran.append((name, is_map(output)))):
        show_black_image(model)
    runs = Counter(name for name, _ in ran)
    stage, found = "", {}
    for name, gives_map in ran:
        if runs[name] > 1:  # used in several places, so its outputs belong to no single stage
            continue
        stage = name if _has_weights(parts[name]) else stage
        if stage and gives_map:
            found[stage] = parts[name]
    return found


def _parts(model: nn.Module) -> list[nn.Module]:
    weighted = [child for child in model.children() if _has_weights(child)]
    if len(weighted) == 1 and list(weighted[0].children()):
        return _parts(weighted[0])
    return [part for child in model.children() for part in (child if isinstance(child, nn.Sequential) else [child])]


def _has_weights(module: nn.Module) -> bool:
    """Say whether a module has matrices or filters, trained or not: more than one number for each channel."""
    return any(tensor.numel() > max(tensor.shape, default=1) for tensor in (*module.parameters(), *module.buffers()))
