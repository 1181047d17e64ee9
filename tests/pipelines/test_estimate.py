"""Predicted memory beside what real runs hold, on tiny pipelines; published architectures by their sizes."""

import functools
import inspect
import json
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
if torch.__version__ < (2, 5):
    pytest.skip("torch 2.4 has no fused attention on meta tensors", allow_module_level=True)

from zoo import build

import symguide as sg
from symguide.cli import main
from symguide.errors import ConfigError, WeightsError
from symguide.meter import SavedBytes
from symguide.pipelines.decode import decoder
from symguide.planning import estimate_memory
from symguide.planning.architecture import PRESETS, architecture
from symguide.planning.parts import Parts
from symguide.planning.simulate import LiveBytes

LENGTHS = {"sd3": {"max_sequence_length": 256}, "flux": {"max_sequence_length": 512}}
"""Texts as long as the pipelines make them where nobody asks for shorter ones."""
CASES = [(family, checkpoint) for family in ("sd", "sdxl", "dit", "sd3", "flux") for checkpoint in (False, True)]
CASES = pytest.mark.parametrize("family, checkpoint", [*CASES, ("sd-unguided", True), ("sd-inpaint-9", False)])
SIZE, N = 64, 3


@pytest.fixture(autouse=True)
def single():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


def bright(x0):
    """Squared distance to a light grey, (B,)."""
    return (x0 - 0.7).square().flatten(1).mean(dim=1)


class Meter(sg.SAG):
    """Measures a guided step by every plan instead of making it."""

    def __init__(self):
        super().__init__(bright, n=N)
        self.seen = {}  # guide works with a copy, which shares this

    def guide(self, step):
        if step.index != 1:
            return None
        predict, x = step.run.predict, step.x
        with SavedBytes() as saved, torch.enable_grad():
            kept = predict(x.detach().requires_grad_(), step.t)
        self.seen["saved"] = saved.live
        del kept
        for memory in ("fast", "minimal", 0):  # all calls inside, as the pipeline's own graph is of the plan "fast"
            with LiveBytes() as live:
                sg.lookahead_gradient(predict.denoiser, x, step.t, self.objective, N, memory=memory)
            self.seen[memory] = live.peak
        with LiveBytes() as live, torch.enable_grad():
            leaf = x.detach().requires_grad_()
            loss = self.objective(sg.lookahead(predict.denoiser, leaf, step.t, N).x0)
            torch.autograd.grad(loss.sum(), leaf)
        self.seen[None] = live.peak
        return None


@functools.cache
def both(family, checkpoint, folder):
    """What a tiny pipeline holds, and what was predicted of it."""
    pipe, call = build(family, folder)
    settings = {"dtype": "float32", "n": N, "guidance": False if "unguided" in family else None}
    size = {} if family == "dit" else {"height": SIZE, "width": SIZE}  # DiT draws what it was trained for
    guess = estimate_memory(pipe, **settings, **size)
    call.pop("image", None), call.pop("mask_image", None)
    call |= {"class_labels": [1]} if family == "dit" else {}
    if family == "sd-inpaint-9":
        call |= {"image": torch.zeros(1, 3, SIZE, SIZE), "mask_image": torch.ones(1, 1, SIZE, SIZE)}
    meter = Meter()
    with sg.guide(pipe, loss=meter, checkpoint=checkpoint):
        pipe(**call | LENGTHS.get(family, {}) | size)
    return meter.seen, {plan.memory: plan for plan in guess.plans if plan.checkpoint == checkpoint}


@CASES
def test_what_a_call_saves(family, checkpoint, folder):
    seen, plans = both(family, checkpoint, folder)
    if checkpoint and family in ("flux", "dit"):  # blocks hold embeddings that hooks do not see
        assert 1.0 < plans["minimal"].graphs / seen["saved"] < 1.5
    else:
        assert plans["minimal"].graphs == pytest.approx(seen["saved"], rel=0.1)


@CASES
def test_the_peak_of_a_guided_step(family, checkpoint, folder):
    seen, plans = both(family, checkpoint, folder)
    for memory, plan in plans.items():
        assert plan.peak - plan.weights == pytest.approx(seen[memory], rel=0.1), memory


def test_decoding_one_by_one_holds_one_picture(folder):
    pipe, _ = build("sd", folder)
    one, four = (estimate_memory(pipe, SIZE, SIZE, batch=b, dtype="float32").plans for b in (1, 4))
    assert four[0].decoder == pytest.approx(4 * one[0].decoder, rel=0.1)
    assert four[1].checkpoint and four[1].decoder < 1.7 * one[1].decoder


def test_what_a_decoder_in_float32_holds_beside_float16(folder):
    """SDXL's: guide decodes with a copy, and with checkpoints that is lean too."""
    pipe, _ = build("sdxl", folder)
    parts, peaks = Parts(architecture(pipe), torch.float16), {}
    grid = parts.latents(1, SIZE, SIZE)
    pipe.to(torch.float16)
    pipe.vae.requires_grad_(False)
    for checkpoint in (False, True):
        z, calls = torch.randn(grid, requires_grad=True), [SimpleNamespace(kwargs={})]
        decode = decoder(pipe, calls, checkpoint)
        with LiveBytes() as live:
            torch.autograd.grad(bright(decode(z)).sum(), z)
        assert parts.footprints(grid, True, checkpoint)[1].peak == pytest.approx(live.peak, rel=0.1)
        peaks[checkpoint] = live.peak
    assert peaks[True] < 0.5 * peaks[False]


def test_saved_bytes_of_the_decoder(folder):
    pipe, _ = build("sd", folder)
    parts = Parts(architecture(pipe), torch.float32)
    grid = parts.latents(2, SIZE, SIZE)
    _, predicted = parts.footprints(grid, True, False)
    pipe.vae.requires_grad_(False)
    with SavedBytes() as saved:
        loss = bright(pipe.vae.decode(torch.randn(grid, requires_grad=True)).sample)
    assert predicted.saved == pytest.approx(saved.live, rel=0.1) and loss.requires_grad


@pytest.mark.parametrize(
    ("name", "network", "vae"),
    [
        ("sd-1.5", 859_520_964, 83_653_863),
        ("sdxl", 2_567_463_684, 83_653_863),
        ("dit-xl-2", 749_826_464, 83_653_863),
        ("sd3-medium", 2_028_328_000, 83_819_683),
        ("flux.1-dev", 11_901_408_320, 83_819_683),
    ],
)
def test_presets_have_the_published_sizes(name, network, vae):
    made = architecture(name)
    sizes = [sum(p.numel() for p in part.build(torch.float16).parameters()) for part in (made.network, made.vae)]
    assert sizes == [network, vae]


@pytest.mark.parametrize(
    ("name", "dtype", "card", "plans"),
    [("sdxl", "float16", 16, {"minimal", 0}), ("sdxl", "bfloat16", 12, {"minimal", 0}), ("sd-1.5", "float16", 4, {0})],
)
def test_cards_that_are_enough(name, dtype, card, plans):
    """With 7% of the card for the driver, and all text encoders on it."""
    fitting = {plan.memory for plan in estimate_memory(name, dtype=dtype).fitting(93 * card * 10**7)}
    assert plans <= fitting


def test_presets_are_all_tested():
    assert set(PRESETS) == {"sd-1.5", "sdxl", "dit-xl-2", "sd3-medium", "flux.1-dev"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_only_what_their_classes_take(name):
    """from_config and from_dict let a misspelt setting pass, and a default take its place."""
    import diffusers
    import transformers

    preset = PRESETS[name]
    assert preset.keys() == {"pipeline", "networks"} and hasattr(diffusers, preset["pipeline"])
    for network in preset["networks"].values():
        assert network.keys() == {"library", "name", "config"}
        made = getattr(diffusers if network["library"] == "diffusers" else transformers, network["name"])
        takes = inspect.signature(made.__init__ if network["library"] == "diffusers" else made.config_class.__init__)
        assert network["config"].keys() <= takes.parameters.keys()


def test_only_float16_of_a_pipeline_that_upcasts_is_decoded_in_float32(folder):
    pipe, _ = build("sdxl", folder)
    made = architecture(pipe)
    assert Parts(made, torch.float16).vae.dtype == torch.float32
    assert Parts(made, torch.bfloat16).vae.dtype == torch.bfloat16
    assert Parts(architecture(build("sd", folder)[0]), torch.float16).vae.dtype == torch.float16


def test_plans_cards_and_calls(folder):
    pipe, _ = build("sd", folder)
    guess = estimate_memory(pipe, n=4)
    assert (guess.height, guess.width, guess.guidance) == (32, 32, True)
    calls = {plan.memory: (plan.forward_calls, plan.backward_calls) for plan in guess.plans}
    assert calls == {None: (4, 4), "fast": (4, 4), "minimal": (7, 4), 0: (8, 4)}
    assert all(p.memory is not None for p in guess.fitting(10**12)) and not guess.fitting(1)
    assert guess.fitting(10**12)[0].memory == "fast" and guess.smallest_card() == 4
    single = estimate_memory(pipe, n=1)
    assert [plan.forward_calls for plan in single.plans] == [1, 1, 1, 1, 1, 1, 2, 2]
    light = estimate_memory(pipe, n=1, text_encoders=False)
    assert light.plans[0].weights < single.plans[0].weights


def written(pipe, folder):
    """The pipeline's configs, as a folder has them without weights."""
    index = {"_class_name": type(pipe).__name__, "safety_checker": [None, None]}
    for name, part in architecture(pipe).components.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(dict(part.config)))
        index[name] = [part.library, part.name]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_folder_of_configs_is_the_pipeline(folder, tmp_path):
    pipe, _ = build("sd", folder)
    assert estimate_memory(written(pipe, tmp_path / "own")) == estimate_memory(pipe)


def test_the_command(folder, tmp_path):
    path = str(written(build("sd", folder)[0], tmp_path / "own"))
    done = CliRunner().invoke(main, ["estimate-memory", path, "--size", "64x32", "--n", "2", "--card", "8GB"])
    assert done.exit_code == 0, done.output
    assert "64 x 32 pixels" in done.output and 'SAG(objective, n=2, memory="fast")' in done.output
    done = CliRunner().invoke(main, ["estimate-memory", path, "--card", "1MB", "--json", str(tmp_path / "f.json")])
    assert "No plan fits into 0.001 GB: a card of 4 GB" in done.output
    record = json.loads((tmp_path / "f.json").read_text())
    assert len(record["plans"]) == 8 and record["smallest_card"] == 4


@pytest.mark.parametrize(
    ("model", "settings", "error", "why"),
    [
        ("sd-1.6", {}, ConfigError, "did you mean 'sd-1.5'"),
        ("nobody/nothing", {}, ConfigError, "no folder here"),
        (object(), {}, ConfigError, "neither"),
        ("sd-1.5", {"height": 500}, ConfigError, "multiples of 8"),
        ("sd-1.5", {"dtype": "float8"}, ConfigError, "unknown dtype"),
        ("sd-1.5", {"n": 0}, ConfigError, "at least 1"),
    ],
)
def test_what_cannot_be_estimated(model, settings, error, why, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(error, match=why):
        estimate_memory(model, **settings)


def test_folders_and_families_that_cannot_be_read(folder, tmp_path):
    with pytest.raises(WeightsError, match="not the folder of a diffusers pipeline"):
        estimate_memory(tmp_path)
    with pytest.raises(ConfigError, match="unknown network 'PixArt"):
        estimate_memory(build("pixart", folder)[0])
