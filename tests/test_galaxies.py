"""The galaxies: files of others read without their code, a network against closed forms and its peer, photometry."""

import hashlib
import io
import sys
import types
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

import symguide as sg
from symguide import objectives
from symguide.cli import main
from symguide.errors import ConfigError, WeightsError
from symguide.objectives import Moments
from symguide.specs.steering import Steering
from symguide.worlds import WORLDS, World, galaxies

SIDE, WIDTH, HIDDEN = 8, 6, 10
REAL = pytest.mark.skipif(
    not WORLDS["galaxies"].denoiser.exists(), reason=f"galaxygrad is not installed: {galaxies.INSTALL}"
)


def arrays(seed=0):
    """Records as equinox writes a network's, in the order of its fields: random weights of a small one."""
    draw = np.random.default_rng(seed).standard_normal
    patches = (SIDE // 4) ** 2

    def mlp(width):
        return [draw(shape) / 3 for shape in ((HIDDEN, width), (HIDDEN,), (width, HIDDEN), (width,))]

    found = [draw(shape) / 3 for shape in ((WIDTH, 2, 4, 4), (WIDTH, 1, 1), (1, WIDTH, 4, 4), (1, 1, 1))]
    for _ in range(4):
        found += [*mlp(patches), *mlp(WIDTH)]
        found += [draw((WIDTH, patches)) for _ in range(2)] + [draw((patches, WIDTH)) for _ in range(2)]
    return [*found, draw((WIDTH, patches)), draw((WIDTH, patches)), np.float64(10.0)]


def written(found, **settings):
    file = io.BytesIO()
    for record in found:
        np.save(file, record, **settings)
    return file.getvalue()


def network(found):
    made = galaxies.ScoreMixer(SIDE, width=WIDTH, hidden=HIDDEN, t_max=1.0)
    galaxies.fill(made, found)
    return made


def score(found, x, t):
    """The score of one picture (1, SIDE, SIDE), written out with sums in numpy."""
    it = iter(found)
    take = lambda count: [np.asarray(next(it)) for _ in range(count)]  # noqa: E731
    into, into_bias, out, out_bias = take(4)
    blocks, norm, (t_max,) = [take(12) for _ in range(4)], take(2), take(1)

    def normed(y, weight, bias):
        return (y - y.mean()) / np.sqrt(y.var() + 1e-5) * weight + bias

    def mixed(y, first, one, second, two):
        return np.maximum(y @ first.T + one, 0) @ second.T + two

    stacked = np.concatenate([x, np.full_like(x, t / t_max)])
    patches = stacked.reshape(2, SIDE // 4, 4, SIDE // 4, 4)
    y = np.einsum("ocij,caibj->oab", into, patches).reshape(WIDTH, -1) + into_bias[:, :, 0]
    for b in blocks:
        y = y + mixed(normed(y, b[8], b[9]), *b[:4])
        y = (y.T + mixed(normed(y.T, b[10], b[11]), *b[4:8])).T
    y = normed(y, *norm).reshape(WIDTH, SIDE // 4, SIDE // 4)
    # equinox: a convolution of the input with zeros between, kernel as stored, so each patch is turned by half a turn
    return np.einsum("cab,ocij->oaibj", y, out[:, :, ::-1, ::-1]).reshape(1, SIDE, SIDE) + out_bias


def test_the_network_is_the_sum_written_out():
    found = arrays()
    x = np.random.default_rng(1).standard_normal((3, 1, SIDE, SIDE))
    t = np.array([0.1, 2.0, 9.0])
    exact = np.stack([score(found, *each) for each in zip(x, t, strict=True)])
    eps = -np.sqrt(1 - np.exp(-t))[:, None, None, None] * exact
    made = network(galaxies.records(written(found)))
    np.testing.assert_allclose(made(torch.tensor(x), torch.tensor(t)).numpy(force=True), eps, rtol=1e-10, atol=1e-12)


def test_guidance_through_it_is_exact():
    made = network(arrays()).requires_grad_(False)
    denoiser = sg.Denoiser(
        made, sg.VP.linear(10.0, 10.0, 10.0), "eps", shape=(1, SIDE, SIDE), decoder=galaxies.Picture(0.9)
    )
    objective = objectives.Decoded(objectives.Ellipticity(0.5), denoiser.decode)
    x = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = torch.autograd.grad(objective(sg.lookahead(denoiser, x, 0.4, 3).x0).sum(), x)[0]
    got = sg.lookahead_gradient(denoiser, x.detach(), 0.4, objective, n=3).value
    assert (got - exact).norm() <= 1e-12 * exact.norm() and exact.norm() > 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (written([*arrays()[:-1], np.array([{"a": 1}], dtype=object)], allow_pickle=True), "allow_pickle=False"),
        (written(arrays())[:-3], "no sequence of numpy records"),
        (b"{}" + written(arrays()), "no sequence of numpy records"),
        (written(arrays()[:-1]), "holds 54 records, not 55 of floats"),
        (written([*arrays()[:-1], np.int64(10)]), "not 55 of floats"),
        (written([arrays()[2], *arrays()[1:]]), "into.weight has shape"),
        (written([*arrays()[:2], arrays()[0], *arrays()[3:]]), "out.weight has shape"),
    ],
    ids=["pickle", "cut", "header", "missing", "integers", "other", "turned"],
)
def test_other_files_are_refused(data, why):
    with pytest.raises(WeightsError, match=why):
        network(galaxies.records(data))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of that name that must not be imported, with a file of zeros in it, and its weights."""
    folder = tmp_path / "galaxygrad"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    records = [np.zeros(p.shape, np.float32) for p in galaxies.ScoreMixer(16).parameters()]
    records[2] = np.zeros((1, 64, 4, 4), np.float32)
    data = written([*records, np.float64(10.0)])
    (folder / "zeros.eqx").write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    return galaxies.Weights("zeros.eqx", 16, 1.0, hashlib.sha256(data).hexdigest())


def test_a_package_is_read_and_not_imported(package, monkeypatch):
    monkeypatch.setitem(WORLDS.things, "galaxies", World("zeros", package.path, make=package.denoiser))
    denoiser = sg.load("galaxies", dtype=torch.float32)
    assert denoiser.dtype == torch.float32 and denoiser.shape == (1, 16, 16)
    x = sg.sample(denoiser, batch=2, steps=3, eta=0.0).samples
    start = sg.sample(denoiser, batch=2, steps=3, eta=0.0, return_trajectory=True).trajectory[0]
    torch.testing.assert_close(x, start / denoiser.schedule.alpha(1.0))  # eps = 0: x stays, but for its scale
    result = CliRunner().invoke(main, ["models", "galaxies"])
    assert result.exit_code == 0 and "2401.07313" in result.output and "no licence" in result.output


def test_another_version_and_none_are_told_apart(package, monkeypatch, tmp_path):
    package.path.write_bytes(package.path.read_bytes() + b"\0")
    monkeypatch.setattr(galaxies.metadata, "version", lambda name: "0.1.8")
    with pytest.raises(
        WeightsError, match=r"sha256 differs; installed: 0.1.8\): pip install --no-deps galaxygrad==0.1.9"
    ):
        package.denoiser()

    def none(name):
        raise PackageNotFoundError

    monkeypatch.setattr(galaxies.metadata, "version", none)
    with pytest.raises(WeightsError, match="no version known"):
        package.denoiser()
    monkeypatch.setattr(galaxies, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="which is not installed: pip install --no-deps"):
        package.denoiser()


def test_the_schedule_is_the_packages():
    """Its training noised with exp(-t / 2) and sqrt(1 - exp(-t)), t from 0 to 10."""
    made = galaxies.ScoreMixer(SIDE)
    schedule = sg.VP.linear(made.t_max, made.t_max, made.t_max)
    for t in (0.02, 1.0, 5.0, 10.0):
        at = schedule.at_timestep(t)
        assert schedule.alpha(at) == pytest.approx(np.exp(-t / 2), rel=1e-12)
        assert schedule.sigma(at) == pytest.approx(np.sqrt(1 - np.exp(-t)), rel=1e-12)


@REAL
@pytest.mark.parametrize("name", galaxies.FILES)
def test_the_real_network_denoises_galaxies_and_draws_them(name):
    """Samples have a bright middle, all nearly the same, on a dark sky, and the model takes noise off them."""
    denoiser = sg.load(name, dtype=torch.float32)
    x = sg.sample(denoiser, batch=8, steps=20, grid="flow", dtype=torch.float32).samples
    picture = denoiser.decode(x)[:, 0]
    assert bool(((picture.amax(dim=(1, 2)) - 1).abs() < 0.3).all()) and (picture[:, :2] + 1).abs().max() < 0.05
    for t in (0.02, 0.1, 0.3):
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        noisy = denoiser.schedule.alpha(t) * x + denoiser.schedule.sigma(t) * z
        assert (denoiser(noisy, t).x0 - x).norm() < 0.5 * (noisy / denoiser.schedule.alpha(t) - x).norm()


@REAL
@pytest.mark.parametrize(("name", "theirs"), [("galaxies", "HSC_32"), ("galaxies-64", "HSC_64")])
def test_the_score_is_the_packages_own(name, theirs, monkeypatch):
    for library in ("jax", "equinox", "einops"):
        pytest.importorskip(library, reason="the package's own network needs JAX, equinox and einops")
    denoiser = sg.load(name, dtype=torch.float32)
    package = types.ModuleType("galaxygrad")  # without its __init__, which wants diffrax too
    package.__path__ = [str(WORLDS[name].denoiser.parent)]
    monkeypatch.setitem(sys.modules, "galaxygrad", package)
    scorenet = pytest.importorskip("galaxygrad.scorenet")
    x = np.random.default_rng(0).standard_normal((4, *denoiser.shape)).astype(np.float32)
    t = np.array([0.02, 0.5, 3.0, 10.0], np.float32)
    exact = np.stack([np.asarray(getattr(scorenet, theirs)(*each)) for each in zip(x, t, strict=True)])
    for each, time, wanted in zip(torch.tensor(x), t, torch.tensor(exact), strict=True):
        got = denoiser(each[None], float(time) / 10).score[0]
        assert (got - wanted).norm() < 2e-6 * wanted.norm()


# Photometry


def gaussian(a, b, angle=0.0, side=65, at=(0.0, 0.0), peak=1.0):
    """A picture of a Gaussian with these half-axes, turned by an angle."""
    y, x = torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 2, indexing="ij")
    y, x = y - at[0], x - at[1]
    c, s = np.cos(angle), np.sin(angle)
    return (2 * peak * torch.exp(-0.5 * (((c * x + s * y) / a) ** 2 + ((c * y - s * x) / b) ** 2)) - 1)[
        None, None
    ].double()


def test_moments_of_gaussians_are_in_closed_form(monkeypatch):
    """Turned and moved; the floor takes what it takes of faint light, so it is nearly none here."""
    monkeypatch.setattr("symguide.objectives.photometry.FLOOR", 1e-9)
    for a, b in ((3.0, 3.0), (4.0, 2.5), (6.0, 3.0)):
        for angle, at in ((0.0, (0.0, 0.0)), (0.7, (2.3, -1.1))):
            found = Moments.of(gaussian(a, b, angle, at=at))
            assert found.flux.item() == pytest.approx(2 * np.pi * a * b, rel=1e-3)
            assert found.size.item() == pytest.approx(np.hypot(a, b), rel=1e-3)
            assert found.ellipticity.item() == pytest.approx((a * a - b * b) / (a * a + b * b), abs=2e-4)


def test_a_sky_of_noise_moves_the_moments_little():
    source = gaussian(4.0, 2.5, side=33, peak=0.9)
    sky = 2e-3 * torch.randn(64, 1, 33, 33, generator=torch.Generator().manual_seed(0))
    for measured in (
        objectives.Size(3.0).measured,
        objectives.Ellipticity(0.5).measured,
        objectives.Flux(3.0).measured,
    ):
        clean, noisy = measured(source), measured(source + sky)
        assert (noisy / clean - 1).abs().max() < 0.05


def test_black_pictures_have_finite_gradients():
    for objective in (objectives.Flux(3.0), objectives.Size(3.0), objectives.Ellipticity(0.5)):
        for level in (-1.0, -1.5):
            x = torch.full((1, 1, 8, 8), level).requires_grad_()
            assert bool(torch.autograd.grad(objective(x).sum(), x)[0].isfinite().all())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: objectives.Flux(0.0), "a flux is positive"),
        (lambda: objectives.Size([1.0, -1.0]), "a size is a positive number of pixels"),
        (lambda: objectives.Ellipticity(1.0), "an ellipticity is from 0 to below 1"),
        (lambda: objectives.Size(float("nan")), "a size is"),
        (lambda: objectives.Size(2.0)(torch.zeros(1, 2, 8, 8)), "with 1 or 3 channels"),
    ],
)
def test_what_photometry_refuses(make, why):
    with pytest.raises(ConfigError, match=why):
        make()


def test_photometry_on_the_command_line_goes_to_the_samples_in_turn():
    x = 2 * torch.rand(3, 1, 8, 8) - 1
    for text, make in (("flux:9, 20", objectives.Flux), ("size:2,3", objectives.Size), ("ellipticity:0.5,0.1", None)):
        make = make or objectives.Ellipticity
        targets = [float(part) for part in text.partition(":")[2].split(",")]
        torch.testing.assert_close(Steering(text, "digits", (1, 8, 8)).at(range(3))(x), make([*targets, targets[0]])(x))
    for text in ("size:big", "flux:", "ellipticity:2"):
        with pytest.raises(ConfigError):
            Steering(text, "digits", (1, 8, 8))


# Deblending


def test_a_blend_is_the_sum_of_moved_sources():
    x = torch.rand(2, 3, 6, 6)
    f = torch.expm1(0.1 * x)
    moves = [(0, 0), (2, -1), (-3, 4)]
    wanted = torch.zeros(2, 6, 6)
    for k, (down, right) in enumerate(moves):
        padded = F.pad(f[:, k], (6, 6, 6, 6))
        wanted += padded[:, 6 - down : 12 - down, 6 - right : 12 - right]
    torch.testing.assert_close(galaxies.Blend(moves)(x)[:, 0], wanted)
    assert galaxies.Blend([(9, 0)])(x[:, :1]).abs().max() == 0
    with pytest.raises(ConfigError, match="a blend of 3 sources"):
        galaxies.Blend(moves)(x[:, :2])


def test_several_galaxies_are_each_their_own():
    made = network(arrays()).requires_grad_(False)
    one = sg.Denoiser(made, sg.VP.linear(10.0, 10.0, 10.0), "eps", shape=(1, SIDE, SIDE))
    both = galaxies.several(one, 2)
    assert both.shape == (2, SIDE, SIDE)
    x = torch.randn(3, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([one(x[:, k : k + 1], 0.3).x0 for k in range(2)], dim=1)
    torch.testing.assert_close(both(x, 0.3).x0, alone)
    for bad in (lambda: galaxies.several(both, 2), lambda: galaxies.several(one, 0)):
        with pytest.raises(ConfigError):
            bad()
