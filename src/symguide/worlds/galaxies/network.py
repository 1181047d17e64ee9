"""The score network of galaxygrad in torch: an MLP-Mixer on patches, written anew; its weights are the user's own."""

import torch
from torch import Tensor, nn


def mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """Mixes patches, then channels, (B, width, patches) -> the same; each time a normalised MLP is added."""

    def __init__(self, patches: int, width: int, hidden: int) -> None:
        super().__init__()
        self.of_patches, self.of_channels = mlp(patches, hidden), mlp(width, hidden)
        self.norm_patches, self.norm_channels = nn.LayerNorm((width, patches)), nn.LayerNorm((patches, width))

    def forward(self, y: Tensor) -> Tensor:
        y = y + self.of_patches(self.norm_patches(y))
        y = y.transpose(1, 2)
        return (y + self.of_channels(self.norm_channels(y))).transpose(1, 2)


class ScoreMixer(nn.Module):
    """x_t (B, 1, side, side) and its time (B,) -> eps, of a network that was trained to give the score.

        eps = -sigma_t score(x_t, t),    sigma_t² = 1 - exp(-t),    t from 0 to t_max

    The time is a second channel, t / t_max in every pixel. Parameters have the order of the records in galaxygrad's
    files.

    Args:
        side: of pictures, a multiple of the patch.
        patch: side of a patch.
        width: channels of a patch.
        hidden: width of the MLPs.
        blocks: how many of them.
        t_max: the time at which x_t is noise.

    Source: Tolstikhin et al., "MLP-Mixer", 2105.01601; the network of Sampson et al., 2401.07313.

    >>> ScoreMixer(8, hidden=16)(torch.zeros(2, 1, 8, 8), torch.tensor([1.0, 2.0])).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self, side: int, patch: int = 4, width: int = 64, hidden: int = 512, blocks: int = 4, t_max: float = 10.0
    ) -> None:
        super().__init__()
        patches, self.t_max = (side // patch) ** 2, t_max
        self.into = nn.Conv2d(2, width, patch, stride=patch)
        self.out = nn.ConvTranspose2d(width, 1, patch, stride=patch)
        self.blocks = nn.Sequential(*(Block(patches, width, hidden) for _ in range(blocks)))
        self.norm = nn.LayerNorm((width, patches))

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        time = (timestep / self.t_max).to(x.dtype).reshape(-1, 1, 1, 1).expand_as(x)
        y = self.into(torch.cat([x, time], dim=1))
        score = self.out(self.norm(self.blocks(y.flatten(2))).reshape(y.shape))
        sigma = torch.sqrt(-torch.expm1(-timestep)).to(x.dtype)
        return -sigma.reshape(-1, 1, 1, 1) * score
