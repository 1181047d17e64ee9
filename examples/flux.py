"""Flux, steered by a loss of your own: any function of pictures in [-1, 1] that gives one number for each.

    python examples/flux.py FOLDER --prompt "a harbour"

Flux and its text encoders take 34 GB in bfloat16. On smaller cards they are moved to the card one after another;
guidance then keeps no graph between calls (memory=0, by itself), as the decoder needs the network's place.
"""

import argparse
import os

import torch
from diffusers import FluxPipeline
from torch import Tensor

import symguide as sg
from symguide import report


def dusk(x0: Tensor) -> Tensor:
    """How far the brightness of each row of a picture is from a sky that is bright below and dark above, (B,)."""
    rows = x0.mean(dim=(1, 3))
    return (rows - torch.linspace(-0.9, 0.3, rows.shape[1], device=x0.device)).square().mean(dim=1)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--prompt", default="a harbour")
parser.add_argument("--size", type=int, nargs=2, default=(1024, 1024), metavar=("HEIGHT", "WIDTH"))
parser.add_argument("--scale", type=float, default=0.5)
options = parser.parse_args()

cuda = torch.cuda.is_available()
pipe = FluxPipeline.from_pretrained(
    options.folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.bfloat16 if cuda else torch.float32
)
if cuda and torch.cuda.get_device_properties(0).total_memory < 45e9:
    pipe.enable_model_cpu_offload()
else:
    pipe.to("cuda" if cuda else "cpu")

height, width = options.size
call = {"height": height, "width": width, "max_sequence_length": 256, "output_type": "pt"}
call["num_inference_steps"] = 3 if "SYMGUIDE_QUICK" in os.environ else 28
plain = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).images
with sg.guide(pipe, loss=sg.SAG(dusk, n=2, scale=options.scale), checkpoint=True) as run:
    guided = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).images

plain, guided = (2 * pictures.float() - 1 for pictures in (plain, guided))
print(f"loss: {dusk(plain).mean():.3f} unguided, {dusk(guided).mean():.3f} guided; {run.cost}")
picture = report.grid([plain.cpu(), guided.cpu()], ["unguided", "guided"], cell=256)
print("wrote", report.write("out/flux.png", report.png(picture)))
