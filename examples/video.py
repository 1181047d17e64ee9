"""Wan, steered to a video that loops: its last frame is to be like its first. Objectives see (B, C, frames, H, W).

    python examples/video.py FOLDER --prompt "a windmill turning" --frames 33

The decoder's graph over all frames is most of the memory: checkpoint=True keeps less of it, and n=1 needs the fewest
calls. An objective on one frame only, such as x0[:, :, 0], decodes all of them too.
"""

import argparse
import io
import os

import torch
from diffusers import WanPipeline
from PIL import Image
from torch import Tensor

import symguide as sg
from symguide import report


def gap(x0: Tensor) -> Tensor:
    """Mean squared difference of the first and the last frame, (B,)."""
    return (x0[:, :, 0] - x0[:, :, -1]).square().flatten(1).mean(dim=1)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--prompt", default="a windmill turning")
parser.add_argument("--size", type=int, nargs=2, default=(480, 832), metavar=("HEIGHT", "WIDTH"))
parser.add_argument("--frames", type=int, default=33, help="4 k + 1")
parser.add_argument("--scale", type=float, default=0.5)
options = parser.parse_args()

cuda = torch.cuda.is_available()
pipe = WanPipeline.from_pretrained(
    options.folder, local_files_only=True, use_safetensors=True, torch_dtype=torch.bfloat16 if cuda else torch.float32
).to("cuda" if cuda else "cpu")

height, width = options.size
call = {"height": height, "width": width, "num_frames": options.frames, "output_type": "pt"}
call["num_inference_steps"] = 3 if "SYMGUIDE_QUICK" in os.environ else 40
plain = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).frames
with sg.guide(pipe, loss=sg.SAG(gap, n=1, scale=options.scale), checkpoint=True) as run:
    guided = pipe(options.prompt, generator=torch.Generator().manual_seed(0), **call).frames

plain, guided = (2 * frames.float().cpu().transpose(1, 2) - 1 for frames in (plain, guided))  # (B, C, frames, H, W)
print(f"loss: {gap(plain).mean():.4f} unguided, {gap(guided).mean():.4f} guided; {run.cost}")
frames = ((guided[0].permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
first, *rest = [Image.fromarray(frame) for frame in frames]
file = io.BytesIO()
first.save(file, "GIF", save_all=True, append_images=rest, duration=62, loop=0)
print("wrote", report.write("out/video.gif", file.getvalue()))
