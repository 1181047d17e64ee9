"""symguide sample --pipeline: a diffusers pipeline in the run machinery of the command line."""

import json
import pickle
import re
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import numpy as np
import transformers
from PIL import Image
from test_cli import run, sentence
from test_encoders import TEXT, VISION, pixels_of
from zoo import build, clip_tokenizer

from symguide.cli.pipeline import generator
from symguide.store import digests

DTYPE = torch.float32
AIM = ("--objective", "palette:#003049,#d62828", "--n", 2)
QUIET = ("--steps", 2, "--quiet", "--no-grid-png", "--format", "safetensors")


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory, folder):
    """Folders of pipelines, written when they are asked for."""
    root = tmp_path_factory.mktemp("pipelines")

    def saved(name):
        if not (root / name).exists():
            build(name, folder)[0].save_pretrained(root / name)
        return root / name

    return saved


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(pipeline, *arguments, out="out", code=0, prompts=("w1 a cat", "w2")):
    typed = [part for prompt in prompts for part in ("--prompt", prompt)]
    return run("sample", "--pipeline", pipeline, "--out", out, *typed, *QUIET, *arguments, code=code)


def samples(out="out"):
    return safetensors.torch.load_file(Path(out) / "samples.safetensors")["samples"]


def alone(folder, prompts, **settings):
    """What the pipeline draws by itself."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    drawn = [
        pipe([prompt], generator=[generator(0, i)], num_inference_steps=2, output_type="pt", **settings).images
        for i, prompt in enumerate(prompts)
    ]
    return 2 * torch.cat(drawn) - 1


# Runs


def test_looks_ahead_along_the_noise_that_its_generators_will_draw(pipelines):
    line = ("--num", 2, "--objective", "palette:#003049,#d62828", "--eta", 1.0, "--steps", 3)
    for out, more in {
        "ode": ("--n", 3),
        "own": ("--set", "path=own", "--n", 3),
        "all": ("--set", "path=own", "--n", "all", "--batch", 2),
    }.items():
        draw(pipelines("sd"), *line, *more, out=out)
    assert torch.allclose(samples("own"), samples("all"), atol=1e-4)  # three calls are all, whatever the batch
    assert not torch.allclose(samples("own"), samples("ode"), atol=1e-3)


def test_unguided_and_at_scale_zero_pictures_are_the_pipelines_own(pipelines):
    folder = pipelines("sd")
    expected = alone(folder, ["w1 a cat", "w2", "w1 a cat"], negative_prompt=["w3"], guidance_scale=4.0)
    assert expected.abs().max() <= 1
    line = ("--num", 3, "--negative-prompt", "w3", "--cfg", 4)
    draw(folder, *line, out="plain")
    draw(folder, *line, *AIM, "--scale", 0, out="zero")
    assert torch.equal(samples("plain"), expected) and torch.equal(samples("zero"), expected)


@pytest.mark.parametrize("size", ["10GB", "30KB"])
def test_weights_in_files_of_half_precision_alone(size, folder, here):
    """model.fp16.safetensors, and in several files."""
    pipe, _ = build("sd", folder)
    pipe.save_pretrained(here / "plain")
    pipe.save_pretrained(here / "half", variant="fp16", max_shard_size=size)
    for name in ("plain", "half"):
        draw(here / name, out=f"of-{name}")
    assert torch.equal(samples("of-half"), samples("of-plain"))


def test_a_rule_in_place_of_the_pipelines_own_guidance(pipelines):
    folder = pipelines("sd")
    line = ("--num", 2, "--cfg", 4)
    draw(folder, *line, out="own")
    draw(folder, *line, "--rule", "cfg", out="cfg")
    draw(folder, "--num", 2, "--rule", "apg", out="apg")
    assert torch.allclose(samples("own"), samples("cfg"), atol=2e-3)
    assert not torch.allclose(samples("own"), samples("apg"), atol=2e-2)
    assert yaml.safe_load(Path("apg/config.yaml").read_text())["cfg"] == 10.0
    assert "leave out --rule" in sentence(draw(pipelines("ddim"), "--rule", "apg", prompts=(), code=2))


def test_a_guided_run_goes_on_and_ends_with_the_same_samples(pipelines):
    """Its loss is lower than that of the same run unguided; a shard that is gone is drawn again."""
    folder = pipelines("sdxl")
    reached = {}
    for scale in (0, 2):
        draw(folder, *AIM, "--num", 3, "--scale", scale, "--json", "run.json", out=f"scale{scale}")
        reached[scale] = json.loads(Path("run.json").read_text())["reached"]["loss"]
    assert reached[2] < reached[0] - 0.01
    whole = Path("scale2/samples.safetensors").read_bytes()
    Path("scale2/shards/000001-000001.safetensors").unlink()
    again = draw(folder, *AIM, "--num", 3, "--scale", 2, "--json", "-", out="scale2")
    figures = json.loads(again.stdout)
    assert figures["drawn_now"] == 1 and figures["shape"] == [3, 32, 32]
    assert figures["cost"]["backward_calls_per_sample"] > 0 and figures["cost"]["peak_bytes"] > 0
    assert Path("scale2/samples.safetensors").read_bytes() == whole


@pytest.mark.parametrize("method", [("--method", "sag", "--sphere", 0.3), ("--method", "lgd", "--samples", 2)])
def test_batches_leave_the_samples_as_they_are(method, pipelines):
    """The noise of lgd's cloud, of the steps (eta 1), and the prompts are by index."""
    line = (*AIM[:2], *method, "--num", 3, "--eta", 1, "--scheduler", "DDIMScheduler")
    for batch in (1, 2):
        draw(pipelines("sd"), *line, "--batch", batch, out=f"batch{batch}")
    torch.testing.assert_close(samples("batch1"), samples("batch2"), atol=2e-4, rtol=0)


def test_a_config_repeats_the_run(pipelines):
    draw(pipelines("sd"), *AIM, "--num", 2, "--checkpoint", "--size", 24, 32, "--scheduler", "EulerDiscreteScheduler")
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    assert written["pipeline"] == str(pipelines("sd")) and written["made_with"]["diffusers"] == diffusers.__version__
    assert written["cfg"] == 7.5 and written["batch"] == 1 and written["size"] == [24, 32]
    run("sample", "--config", "out/config.yaml", "--out", "again")
    assert samples().shape == (2, 3, 24, 32)
    for name in ("samples.safetensors", "config.yaml"):
        assert Path("out", name).read_bytes() == Path("again", name).read_bytes()


def test_what_is_typed_wins_over_the_source_of_a_config(pipelines):
    Path("model.yaml").write_text("model: digits\nsolver: heun\nbatch: 64\nnum: 1\ngrid-png: false\n")
    line = ("--config", "model.yaml", "--pipeline", pipelines("sd"), "--prompt", "w1", "--steps", 1, "--out", "one")
    said = run("sample", *line).stderr
    assert "the config's --solver, --batch belonged to its model: left out" in said
    assert yaml.safe_load(Path("one/config.yaml").read_text())["batch"] == 1
    Path("pipeline.yaml").write_text("pipeline: anywhere\nsize: [8, 8]\nbatch: 1\nnum: 1\ngrid-png: false\n")
    said = run("sample", "--config", "pipeline.yaml", "--model", "digits", "--steps", 1, "--out", "two").stderr
    assert "the config's --size, --batch belonged to its pipeline: left out" in said
    assert yaml.safe_load(Path("two/config.yaml").read_text())["eta"] == 1.0
    Path("both.yaml").write_text("pipeline: anywhere\nsolver: heun\n")
    assert "--solver has no meaning" in sentence(run("sample", "--config", "both.yaml", code=2))


def test_a_changed_pipeline_is_another_run(pipelines, folder, tmp_path):
    build("sd", folder)[0].save_pretrained(tmp_path / "sd")
    draw(tmp_path / "sd", "--num", 1)
    config = tmp_path / "sd" / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert "the weights of the pipeline are not as it was" in sentence(draw(tmp_path / "sd", "--num", 1, code=2))


def test_pipelines_without_prompts(pipelines):
    draw(pipelines("ddim"), *AIM, "--num", 2, "--batch", 2, "--eta", 1, "--format", "png", "--grid-png", prompts=())
    assert Image.open("out/samples/000001.png").size == (16, 16) and Path("out/grid.png").exists()


def test_an_objective_by_a_clip(pipelines, tmp_path):
    tokenizer = clip_tokenizer(tmp_path / "clip")
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = TEXT | {"vocab_size": len(tokenizer)} | ids
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    for part in (transformers.CLIPModel(config), tokenizer, pixels_of("CLIP", 16)):
        part.save_pretrained(tmp_path / "clip")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 32, 3), np.uint8)).save("ref.png")
    line = ("--objective", "style:ref.png", "--encoder", tmp_path / "clip", "--method", "sag", "--n", 1, "--num", 1)
    draw(pipelines("sd"), *line, "--json", "run.json")
    figures = json.loads(Path("run.json").read_text())
    assert figures["reached"]["loss"] > 0
    assert str(tmp_path / "clip" / "model.safetensors") in figures["config"]["made_with"]["files"]


def test_generators_of_a_run_are_all_different():
    seeds = {generator(seed, index).initial_seed() for seed in (0, 1, -1) for index in range(2000)}
    assert len(seeds) == 6000 and max(seeds) < 2**32


# Errors


@pytest.mark.parametrize(
    "family, line, why",
    [
        ("sd", "--model digits", "--model and --pipeline both"),
        ("sd", "--solver heun", "--solver has no meaning with a pipeline: .*--scheduler"),
        ("sd", "--grid karras", "--grid has no meaning"),
        ("sd", "--condition label=3", "by --prompt"),
        ("sd", "--best-of 4 --objective palette:#ff0000", "draws each sample once"),
        ("sd", "--scheduler DDIMSchedule", "did you mean .*'DDIMScheduler'"),
        (
            "sd",
            "--scheduler FlowMatchEulerDiscreteScheduler",
            "noise of diffusion, and FlowMatchEulerDiscreteScheduler is one of flows",
        ),
        ("sd", "--size 30 33", "multiples of 2"),
        ("sd", "--checkpoint", "nothing is guided"),
        ("sd", "--negative-prompt w3 --cfg 1", "guidance_scale above 1"),
        ("sdxl", "--eta 1", "EulerDiscreteScheduler takes no --eta"),
        ("ddim", "", "takes no prompt"),
        ("wan", "", "draws videos.*symguide.guide"),
        ("sd-img2img", "", r"takes pictures \(image\)"),
        ("dit", "", "takes class_labels"),
    ],
)
def test_what_does_not_go_together(family, line, why, pipelines):
    assert re.search(why, sentence(draw(pipelines(family), *line.split(), code=2)))
    assert not Path("out").exists()


def test_no_prompt(pipelines):
    assert 'give --prompt, or --prompt ""' in sentence(draw(pipelines("sd"), code=2, prompts=()))


def test_options_of_pipelines_need_one():
    for option in (("--size", 8, 8), ("--negative-prompt", "w"), ("--checkpoint",), ("--scheduler", "DDIMScheduler")):
        assert "for runs with --pipeline" in sentence(run("sample", *option, code=2))


def test_pipelines_that_cannot_be_had(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no model_index.json" in sentence(draw("empty", code=2))
    assert "hf download nobody/no-such-pipeline" in sentence(draw("nobody/no-such-pipeline", code=2))


def test_a_pipeline_of_the_hub_is_known_by_its_commit(folder, tmp_path, monkeypatch):
    build("ddim", folder)[0].save_pretrained(tmp_path / "snapshots" / "c0ffee")
    asked = []

    def download(name, **settings):
        asked.append((name, settings))
        return str(tmp_path / "snapshots" / "c0ffee")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    draw("someone/ddim", "--num", 1, prompts=())
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    assert written["pipeline"] == "someone/ddim" and written["made_with"]["weights"] == "c0ffee"
    assert asked == [("someone/ddim", {"use_safetensors": True})]


def test_an_encoder_of_the_hub_is_known_by_its_commit(tmp_path, monkeypatch):
    """By the hub's own cache, as its client lays it out."""
    cached = tmp_path / "models--someone--clip"
    for path, text in (("refs/main", "c0ffee"), ("snapshots/c0ffee/config.json", "{}")):
        (cached / path).parent.mkdir(parents=True)
        (cached / path).write_text(text)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert digests.of_encoder("someone/clip") == {"someone/clip": "c0ffee"}


class Planted:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return open, ("planted", "w")


def test_pickles_and_code_of_a_folder_are_never_run(folder, tmp_path):
    build("ddim", folder)[0].save_pretrained(tmp_path / "ddim")
    weights = tmp_path / "ddim" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.with_suffix(".bin").write_bytes(pickle.dumps(Planted()))
    weights.unlink()
    assert "with safetensors files" in sentence(draw("ddim", code=2, prompts=()))
    (tmp_path / "ddim" / "unet" / "own.py").write_text("open('planted', 'w')")
    assert "has code of its own" in sentence(draw("ddim", code=2, prompts=()))
    assert not Path("planted").exists()


def test_without_diffusers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert 'pip install "symguide[pipelines]"' in sentence(draw("anything", code=2))
