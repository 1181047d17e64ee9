"""A caption says what to draw, and a picture says in which style: text to image, steered by Gram matrices."""

import os

import symguide as sg
from symguide import report
from symguide.worlds import scenes

quick = "SYMGUIDE_QUICK" in os.environ
reference = scenes.render(scenes.draw("held_out", [2]), side=32)  # any picture (1, 3, H, W) in [-1, 1]
prompts = ["a red star", "a white ring", "a black cross", "a blue square"]
settings = {
    "batch": len(prompts),
    "steps": 4 if quick else 30,
    "condition": {"caption": scenes.tokens(prompts)},
    "prediction": sg.CFG(3.0),
}
denoiser = sg.load("scenes")
objective = scenes.objective("style", reference)  # by the world's own network; Style(reference, network) by yours
plain = sg.sample(denoiser, **settings)
styled = sg.sample(denoiser, loss=sg.SAG(objective, n=2 if quick else 4), **settings)

rows = [reference.expand(len(prompts), -1, -1, -1), plain.samples, styled.samples]
picture = report.grid(rows, ["reference", "prompt alone", "with its style"], prompts, cell=128, smooth=False)
print(f"distance to the style: {objective(plain.samples).mean():.3f} -> {objective(styled.samples).mean():.3f}")
print(f"{styled.cost}\nwrote {report.write('out/style.png', report.png(picture))}")
