"""Feature maps of any network, taken where they arise."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from symguide.errors import ConfigError


class Features(nn.Module):
    """A backbone of your own as a network with maps(x), for `Style`: the outputs of some of its submodules.

    Args:
        backbone: called with pictures in its own units, which preprocess= of `Style` makes: Preprocess.imagenet().
        names: of the submodules, as backbone.named_modules() has them, such as ["layer1", "layer2.0.conv1"].

    Raises:
        ConfigError: for a name that is no submodule, or, when called, one whose output is no map (B, C, H, W), or that
            the backbone has not called.

    Cost: the backbone up to the last of the submodules, and a copy of each map. One that is called several times gives
    its first output.

    >>> import torch
    >>> backbone = nn.Sequential(nn.AvgPool2d(2), nn.ReLU(inplace=True), nn.Flatten())
    >>> Features(backbone, ["0"]).maps(-torch.ones(1, 3, 2, 2))[0].flatten()      # before the ReLU changed it in place
    tensor([-1., -1., -1.])
    """

    def __init__(self, backbone: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise ConfigError(f"the backbone of features must be a torch.nn.Module, not {type(backbone).__name__}")
        known = [name for name, _ in backbone.named_modules() if name]
        if not names or isinstance(names, str):
            raise ConfigError("features need a list of names of submodules, such as ['layer1', 'layer2']")
        for name in names:
            if name not in known:
                close = get_close_matches(str(name), known, n=3, cutoff=0) or ["none"]
                raise ConfigError(
                    f"{type(backbone).__name__} has no submodule {name!r}: the nearest are {', '.join(close)}"
                )
        self.backbone, self.names = backbone, tuple(names)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps (B, C_l, H_l, W_l), in the order of the names."""
        maps = outputs(self.backbone, self.names, x)
        for name, made in zip(self.names, maps, strict=True):
            if not isinstance(made, Tensor) or made.ndim != 4:
                what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
                raise ConfigError(f"the output of {name} is {what}, and a feature map (B, C, H, W)")
        return maps


class _Enough(Exception):
    """All outputs are there, and the rest of the network need not run."""


def outputs(network: nn.Module, names: Sequence[str], x: Tensor) -> list[Any]:
    """What submodules give inside network(x), by name and in that order; of a tuple its first.

    They are copies, because networks go on to change their activations in place.
    """
    found: dict[str, Any] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            found.setdefault(name, output.clone() if isinstance(output, Tensor) else output)
            if found.keys() == set(names):
                raise _Enough

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in set(names)]
    try:
        network(x)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if missed := sorted(set(names) - found.keys()):
        raise ConfigError(f"{type(network).__name__} has not called its submodule {missed[0]!r}: choose another")
    return [found[name] for name in names]
