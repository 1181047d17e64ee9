"""Perturbed-attention guidance (PAG): away from what the model says when its tokens do not look at each other."""

from dataclasses import dataclass
from typing import Annotated

from symguide.branch import Asked, Branch, Point, Rule
from symguide.edits import attention_identity
from symguide.errors import ConfigError, is_number
from symguide.ranges import Around
from symguide.registry import register


@register("prediction guidance", "pag")
@dataclass(frozen=True)
class PAG(Rule):
    """Perturbed-attention guidance: y = c + scale (c - k), where in k the named self-attentions see each token alone.

    It needs neither a condition nor a null condition. Affine with weights that sum to 1, so the same in every
    prediction space. With classifier-free guidance: chain(CFG(5.0), PAG(...)), which costs 3 calls.

    Args:
        modules: names of the modules, * for any one part of a name: of attention maps in a network of your own, such as
            "middle.*.attention.softmax", or of diffusers' attentions, such as
            "mid_block.attentions.*.transformer_blocks.*.attn1". The paper takes those in the middle.
        scale: 0.0 is off (k is not computed), more is stronger; 3.0 in the paper.

    Raises:
        ConfigError: where no module has such a name. GuidanceError: for modules of other kinds.

    Use it where there is no condition, or beside CFG at lower scales of both.

    Cost: 2 calls per sample in one batch; 1 at scale 0.0.

    Source: Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", 2403.17377.
    """

    modules: str
    scale: Annotated[float, Around(2.0)] = 3.0

    def __post_init__(self) -> None:
        if not isinstance(self.modules, str) or not is_number(self.scale):
            raise ConfigError(f"PAG takes names of modules and a scale, not {self.modules!r} and {self.scale!r}")

    def calls(self, at: Point) -> Asked:
        if self.scale == 0.0:
            return (yield {"c": Branch()})["c"]
        p = yield {"c": Branch(), "k": Branch(edit=attention_identity(self.modules))}
        c, k = p["c"], p["k"]
        guided = c.with_value(c.value + self.scale * (c.value - k.value))
        return guided.with_value(guided.value, shift=(guided.eps - c.eps).detach())
