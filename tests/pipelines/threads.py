"""Three threads draw at once, two of them guided: each must draw what it draws alone.

python tests/pipelines/threads.py 200     # so many times, with pipelines of their own and with shared networks
"""

import sys
import tempfile
import threading
from contextlib import contextmanager, nullcontext

import diffusers
import torch
from zoo import BETAS, bright, built, sd

import symguide as sg

JOBS = {
    "dsg": ("EulerAncestralDiscreteScheduler", lambda: sg.DSG(bright, rate=0.2)),
    "mpgd": ("DDPMScheduler", lambda: sg.MPGD(bright)),
    "freedom": ("EulerDiscreteScheduler", lambda: sg.FreeDoM(bright)),
    "plain": ("DDPMScheduler", None),
}


def pipelines(folder, shared):
    """One for each job, with networks of its own or all with the same, and always with a scheduler of its own."""
    first = built(sd, folder)
    first.unet.requires_grad_(False)
    made = {}
    for name, (kind, _) in JOBS.items():
        pipe = first if shared else built(sd, folder)
        settings = BETAS | ({"clip_sample": False} if kind == "DDPMScheduler" else {})
        scheduler = getattr(diffusers, kind)(**settings)
        made[name] = diffusers.StableDiffusionPipeline(
            **{**pipe.components, "scheduler": scheduler}, requires_safety_checker=False
        )
        made[name].set_progress_bar_config(disable=True)
        made[name].seen = torch.randn(2, 1, 77, 32, generator=torch.Generator().manual_seed(0))
    return made


def draw(name, pipe, seed=0, steps=3):
    recipe = JOBS[name][1]
    with nullcontext() if recipe is None else sg.guide(pipe, loss=recipe(), decode=False):
        return pipe(
            prompt_embeds=pipe.seen[1],  # a tokenizer is of one thread
            negative_prompt_embeds=pipe.seen[0],
            num_inference_steps=steps,
            height=32,
            width=32,
            output_type="latent",
            generator=torch.Generator().manual_seed(seed),
        ).images


@contextmanager
def switching(seconds):
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def race(folder, names, shared, times):
    """What went wrong in so many races: errors, and the names of jobs that drew something else than alone."""
    made = pipelines(folder, shared)
    alone = {name: draw(name, made[name]) for name in names}
    wrong = []

    def job(name, ready):
        ready.wait()
        try:
            if not torch.equal(draw(name, made[name]), alone[name]):
                wrong.append(name)
        except Exception as error:
            wrong.append(f"{name}: {error!r}")

    with switching(1e-5):
        for _ in range(times):
            ready = threading.Barrier(len(names))
            threads = [threading.Thread(target=job, args=(name, ready)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    left = [name for name in names if made[name].unet._forward_hooks or "step" in vars(made[name].scheduler)]
    return wrong + [f"{name} is not what it was" for name in left]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for shared in (False, True):
        for names in (("dsg", "mpgd", "plain"), ("dsg", "freedom", "plain")):
            wrong = race(tempfile.mkdtemp(), names, shared, int(sys.argv[1]))
            print("shared networks" if shared else "own networks", names, f"{len(wrong)} wrong", wrong[:3], flush=True)
