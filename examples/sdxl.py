"""Stable Diffusion XL, whose edges are steered to a sketch: here a ring, drawn by this script.

    python examples/sdxl.py FOLDER --prompt "a wreath of autumn leaves on a table"

A guided step takes gradients through the decoder at full size, which is most of its memory. checkpoint=True computes
blocks of networks and decoder again in the backward sweep, and memory=0 keeps no graph from the look-ahead: together
they fit cards of 16 GB. The gradient stays exact.
"""

import argparse
import os

import torch
from diffusers import StableDiffusionXLPipeline

import symguide as sg
from symguide import report

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--prompt", default="a wreath of autumn leaves on a table")
parser.add_argument("--scale", type=float, default=0.5)
options = parser.parse_args()

cuda = torch.cuda.is_available()
pipe = StableDiffusionXLPipeline.from_pretrained(
    options.folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.float16 if cuda else torch.float32
).to("cuda" if cuda else "cpu")
small = cuda and torch.cuda.get_device_properties(0).total_memory < 20e9

side = pipe.default_sample_size * pipe.vae_scale_factor
line = torch.linspace(-1, 1, side)
distance = torch.hypot(line[:, None], line[None, :])
sketch = ((distance - 0.6).abs() < 0.03).float()  # (H, W), 1 on the lines
objective = sg.objectives.Edges(sketch.to(pipe.device), smoothing=side / 128)

call = {"num_inference_steps": 3 if "SYMGUIDE_QUICK" in os.environ else 40, "output_type": "pt"}
plain = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).images
loss = sg.SAG(objective, n=4, scale=options.scale, window=(0.0, 0.7), memory=0 if small else "minimal")
with sg.guide(pipe, loss=loss, checkpoint=True) as run:
    guided = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).images

plain, guided = (2 * pictures.float() - 1 for pictures in (plain, guided))
print(f"loss: {objective(plain).mean():.3f} unguided, {objective(guided).mean():.3f} guided; {run.cost}")
shown = (2 * sketch - 1).expand(1, 3, -1, -1)
picture = report.grid([shown, plain.cpu(), guided.cpu()], ["sketch", "unguided", "guided"], cell=256)
print("wrote", report.write("out/sdxl.png", report.png(picture)))
