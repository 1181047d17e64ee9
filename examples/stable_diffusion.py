"""Stable Diffusion, steered to a palette, or through a CLIP to the style of a picture. First drawn without guidance.

    python examples/stable_diffusion.py FOLDER --prompt "a lighthouse at night"
    python examples/stable_diffusion.py FOLDER --prompt "a lighthouse" --style picture.png --clip CLIP_FOLDER

FOLDER is what a pipeline's save_pretrained wrote, or `hf download` of a model with safetensors.
"""

import argparse
import os

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import symguide as sg
from symguide import encoders, report

PALETTE = "#003049 #d62828 #f77f00 #fcbf49"
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--prompt", default="a lighthouse at night")
parser.add_argument("--style", metavar="PICTURE", help="with --clip: its style, in place of the palette")
parser.add_argument("--clip", metavar="FOLDER")
parser.add_argument("--scale", type=float, default=0.5)
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.float16 if device == "cuda" else torch.float32  # guide keeps small gradients from vanishing in float16
pipe = StableDiffusionPipeline.from_pretrained(
    options.folder, local_files_only=True, use_safetensors=True, torch_dtype=dtype
).to(device)
if options.style and options.clip:
    pixels = torch.from_numpy(np.array(Image.open(options.style).convert("RGB"))) / 127.5 - 1
    encoder = encoders.CLIP.from_pretrained(options.clip, local_files_only=True).to(device)
    objective = sg.objectives.Style(pixels.permute(2, 0, 1)[None].to(device), encoder)
else:
    colours = [list(bytes.fromhex(colour[1:])) for colour in PALETTE.split()]
    objective = sg.objectives.Palette(torch.tensor(colours, device=device) / 127.5 - 1)

call = {"num_inference_steps": 3 if "SYMGUIDE_QUICK" in os.environ else 50, "output_type": "pt"}
plain = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).images
with sg.guide(pipe, loss=sg.SAG(objective, n=4, scale=options.scale)) as run:
    guided = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).images

plain, guided = (2 * pictures.float() - 1 for pictures in (plain, guided))
print(f"loss: {objective(plain).mean():.3f} unguided, {objective(guided).mean():.3f} guided; {run.cost}")
picture = report.grid([plain.cpu(), guided.cpu()], ["unguided", "guided"], cell=256)
print("wrote", report.write("out/stable_diffusion.png", report.png(picture)))
