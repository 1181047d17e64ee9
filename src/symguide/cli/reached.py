"""How well a run met its objective: by the objective itself, and by judges that guidance has not seen."""

from typing import Any

import torch
from torch import Tensor, nn

from symguide.cli.shards import Shards
from symguide.objectives import Classifier
from symguide.specs.steering import Scored, Steering


@torch.no_grad()
def reached(steering: Steering, text: str, shards: Shards, device: str) -> dict[str, Any]:
    """The objective's mean loss; for terms with an embedded network also each one's by its scorer and by its judge.

    Args:
        steering: of the run.
        text: its spec.
        shards: the samples.
        device: where losses are computed.

    Returns:
        {"objective": text, "loss": mean, "terms": [{"term": ..., "scorer": {"loss": ...}, "judge": ...}]}, with "hits",
        the share of samples whose label is the network's first choice, for classifiers.
    """
    losses = [steering.at(indices)(samples.to(device)).double() for indices, samples, _ in shards]
    out: dict[str, Any] = {"objective": text, "loss": _mean(losses)}
    for scored in steering.scored:
        entry: dict[str, Any] = {"term": scored.text, "scorer": _by(scored.scorer, scored, shards, device)}
        if (judge := scored.judge()) is not None:
            entry["judge"] = _by(judge, scored, shards, device)
        out.setdefault("terms", []).append(entry)
    return out


def _by(network: nn.Module, scored: Scored, shards: Shards, device: str) -> dict[str, float | None]:
    losses, hits = [], []
    for indices, samples, _ in shards:
        aim, samples = scored.make(network, indices), samples.to(device)
        losses.append(aim(samples).double())
        if isinstance(aim, Classifier):
            hits.append((aim.logits(samples).argmax(dim=1).cpu() == aim.label).double())
    return {"loss": _mean(losses)} | ({"hits": _mean(hits)} if hits else {})


def _mean(parts: list[Tensor]) -> float | None:
    """The mean, or None where it is not finite (JSON has no such number)."""
    value = torch.cat([part.cpu() for part in parts]).mean().item()
    return value if abs(value) < float("inf") else None
