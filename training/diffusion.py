"""Losses that denoisers and flows are trained with, per sample."""

import torch
from torch import Tensor, nn

from symguide.per_sample import expand
from symguide.schedule import RectifiedFlow, Schedule


def times(count: int, schedule: Schedule) -> Tensor:
    """Random t in (0, t_max), (count,): one draw, shifted by 1 / count each, so that every batch covers all levels."""
    return ((torch.rand(1) + torch.arange(count) / count) % 1.0).clamp(1e-4, 1 - 1e-4) * schedule.t_max


def v_loss(network: nn.Module, schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor, *condition: Tensor) -> Tensor:
    """min-SNR-5 weighted error of v = alpha * eps - sigma * x0, (B,): min(SNR, 5) / (SNR + 1) * |v - network|² / d.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2303.09556.
    """
    snr = (schedule.alpha(t) / schedule.sigma(t)) ** 2
    return snr.clamp_max(5.0) / (snr + 1) * _v_error(network, schedule, x0, t, noise, *condition)


def floored_v_loss(
    network: nn.Module, schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor, *condition: Tensor, most: float = 5.0
) -> Tensor:
    """Error of v with weights that do not vanish in noise, (B,): min(SNR + 1, most) / (SNR + 1) * |v - network|² / d.

    min-SNR's own weight goes to 0 with the SNR, and there the condition alone decides what is drawn: where it names one
    drawing of thousands, that has to be learnt. In units of x_0's error the weight is 1 in noise and at most `most`: 5
    as min-SNR has it for natural pictures; flat colours show finer noise and ask for more.
    """
    snr = (schedule.alpha(t) / schedule.sigma(t)) ** 2
    return (snr + 1).clamp_max(most) / (snr + 1) * _v_error(network, schedule, x0, t, noise, *condition)


def _v_error(
    network: nn.Module, schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
) -> Tensor:
    """|alpha * eps - sigma * x0 - network|² / d, (B,)."""
    alpha, sigma = expand(schedule.alpha(t), x0), expand(schedule.sigma(t), x0)
    error = network(alpha * x0 + sigma * noise, schedule.timestep(t), *condition) - (alpha * noise - sigma * x0)
    return error.square().flatten(1).mean(1)


def eps_loss(
    network: nn.Module, schedule: Schedule, x0: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
) -> Tensor:
    """Error of the noise, (B,): |eps - network|² / d.

    Source: Ho et al., "Denoising Diffusion Probabilistic Models", 2006.11239, eq. 14.
    """
    alpha, sigma = expand(schedule.alpha(t), x0), expand(schedule.sigma(t), x0)
    error = network(alpha * x0 + sigma * noise, schedule.timestep(t), *condition) - noise
    return error.square().flatten(1).mean(1)


def flow_loss(
    network: nn.Module, schedule: RectifiedFlow, x0: Tensor, t: Tensor, noise: Tensor, *condition: Tensor
) -> Tensor:
    """Error of the velocity eps - x0 along (1 - t) x0 + t eps, (B,): |eps - x0 - network|² / d.

    Source: Liu et al., "Flow Straight and Fast", 2209.03003.
    """
    along = expand(t, x0)
    error = network((1 - along) * x0 + along * noise, schedule.timestep(t), *condition) - (noise - x0)
    return error.square().flatten(1).mean(1)


LOSSES = {"v": v_loss, "eps": eps_loss, "flow": flow_loss}
"""By what the network predicts."""
