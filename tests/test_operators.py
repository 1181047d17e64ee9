"""Linear operators against scipy, numpy and their own adjoints; a measurement of them under the sampler's noise."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from conftest import relative

import symguide as sg
from symguide.errors import ConfigError, GuidanceError
from symguide.linear import conjugate_gradients
from symguide.objectives import Measurement, Region, measured
from symguide.objectives.blur import Blur, GaussianBlur, MotionBlur
from symguide.objectives.operators import CompressedSensing, Downsample, LinearOperator, Mask
from symguide.per_sample import Noise, rows_of_samples

SHAPE = (3, 6, 8)
KERNEL = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
SEEN = (torch.rand(6, 8, generator=torch.Generator().manual_seed(1)) < 0.5).double()
MADE = {
    "mask": Mask(SEEN),
    "masks": Mask(torch.stack([SEEN, 1 - SEEN, SEEN.flip(0)])[:, None]),
    "downsample": Downsample(2),
    "blur": Blur(KERNEL),
    "gaussian": GaussianBlur(0.8),
    "wide-gaussian": GaussianBlur(2.5),
    "motion": MotionBlur(4.5, 25),
    "sensing": CompressedSensing(SHAPE, 0.3),
}


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MADE)
def test_the_adjoint_is_one(name):
    a, x = MADE[name], torch.randn(3, *SHAPE, requires_grad=True)
    y = torch.randn_like(a(x))
    inner = (a(x) * y).flatten(1).sum(1)
    assert torch.allclose(inner, (x * a.adjoint(y)).flatten(1).sum(1), rtol=1e-12)
    assert torch.allclose(torch.autograd.grad(inner.sum(), x)[0], a.adjoint(y), atol=1e-13)
    assert y.shape[1:] == SHAPE or y[0].numel() < x[0].numel()


@pytest.mark.parametrize("name", MADE)
def test_a_batch_is_a_loop_and_narrow_types_are_widened(name):
    a, x = MADE[name], torch.randn(3, *SHAPE)
    y = a(x)
    if name != "masks":
        for k in range(3):
            assert relative(a(x[k : k + 1])[0], y[k]) < 1e-14
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 4e-3)):  # the inputs' own rounding
        assert a(x.to(dtype)).dtype == a.adjoint(y.to(dtype)).dtype == torch.float32
        assert relative(a(x.to(dtype)), y) < tolerance
        assert relative(a.adjoint(y.to(dtype)), a.adjoint(y)) < tolerance


def matrix_of(a, i=0):
    """(measurements, pixels): column by column, what A makes of each pixel of sample i of 3."""
    d = math.prod(SHAPE)
    columns = [a(pixel.reshape(1, *SHAPE).expand(3, *SHAPE))[i].flatten() for pixel in torch.eye(d)]
    return torch.stack(columns, dim=1)


class Dense(LinearOperator):
    """A matrix on flattened samples, which knows nothing but itself and its transpose."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, x):
        return x.flatten(1) @ self.matrix.T

    def adjoint(self, y):
        return (y @ self.matrix).reshape(-1, *SHAPE)


def dense(rows, rank):
    """Singular values from 1 to 3."""
    u, v = (torch.linalg.qr(torch.randn(n, rank))[0] for n in (rows, math.prod(SHAPE)))
    return Dense(u * torch.linspace(3, 1, rank) @ v.T)


torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
INVERTED = MADE | {
    "derivative": Blur(torch.tensor([[0.5, 0.0, -0.5]])),  # of which nothing is left at frequency 0
    "soft mask": Mask(torch.rand(6, 8) * SEEN),
    "dense": dense(20, 20),
    "dense, tall": dense(200, 144),
    "dense, of rank 7": dense(20, 7),
}
torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", INVERTED)
def test_the_pseudoinverse_is_moores_and_penroses(name):
    a, x = INVERTED[name], torch.randn(3, *SHAPE)
    y = torch.randn_like(a(x))
    assert relative(a(a.pinv(a(x))), a(x)) < 1e-10  # A A^+ A = A
    assert relative(a.pinv(a(a.pinv(y))), a.pinv(y)) < 1e-10  # A^+ A A^+ = A^+
    for i in range(3):
        inverse = torch.linalg.pinv(matrix_of(a, i), rtol=1e-12)
        exact = 1e-5 if name == "wide-gaussian" else 1e-8  # it has singular values of 1e-10
        assert relative(a.pinv(y)[i].flatten(), inverse @ y[i].flatten()) < exact
    if name != "masks":
        assert relative(a.pinv(y[1:2])[0], a.pinv(y)[1]) < 1e-12


@pytest.mark.parametrize("ridge", [1e-3, 0.7])
@pytest.mark.parametrize("name", INVERTED)
def test_solve_is_the_inverse_of_a_matrix(name, ridge):
    a, v = INVERTED[name], torch.randn_like(INVERTED[name](torch.zeros(3, *SHAPE)))
    solved = a.solve(v, ridge)
    for i in range(3):
        m = matrix_of(a, i)
        expected = torch.linalg.solve(m @ m.T + ridge * torch.eye(len(m)), v[i].flatten())
        assert relative(solved[i].flatten(), expected) < 1e-9


@pytest.mark.parametrize("name", INVERTED)
def test_solve_without_a_ridge_of_what_a_can_make(name):
    """The shortest u with A A* u = A x; and where A cannot make all, others are refused."""
    a, x = INVERTED[name], torch.randn(3, *SHAPE)
    if name == "wide-gaussian":  # singular values down to 1e-17: neither the rank nor the solution is one
        pytest.skip("no rank")
    solved = a.solve(a(x))
    full = True
    for i in range(3):
        m = matrix_of(a, i)
        full &= int(torch.linalg.matrix_rank(m)) == len(m)
        assert relative(solved[i].flatten(), torch.linalg.pinv(m @ m.T, rtol=1e-12) @ a(x)[i].flatten()) < 1e-7
    if not full:
        with pytest.raises(GuidanceError, match="give a ridge > 0"):
            a.solve(torch.randn_like(a(x)))


@pytest.mark.parametrize("name", [*MADE, "soft mask", "derivative"])
def test_singular_values_are_those_of_the_matrix(name):
    a = INVERTED[name]
    values = a.singular(SHAPE)
    for i in range(3):
        mine = values[i] if values.ndim == 2 else values
        assert torch.allclose(mine, torch.linalg.svdvals(matrix_of(a, i)), atol=1e-13)


def test_conjugate_gradients_end_for_each_sample_by_itself():
    """The hard sample takes many iterations, the easy one is not touched after its own."""
    scales = torch.stack([torch.ones(30), torch.logspace(0, 4, 30)])
    b, calls = torch.randn(2, 30), []

    def apply(u):
        calls.append(1)
        return scales * u

    both = conjugate_gradients(apply, b)
    assert len(calls) > 20
    assert torch.allclose(both, b / scales, rtol=1e-8)
    easy = conjugate_gradients(lambda u: scales[:1] * u, b[:1])
    hard = conjugate_gradients(lambda u: scales[1:] * u, b[1:])
    assert torch.equal(torch.cat([easy, hard]), both)
    with pytest.raises(GuidanceError, match="no solution for samples \\[1\\]"):
        conjugate_gradients(lambda u: scales * u, b, iterations=5)
    singular = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 3.0]])
    with pytest.raises(GuidanceError, match="no solution for samples \\[0\\]"):
        conjugate_gradients(lambda u: singular * u, torch.ones(2, 3))
    assert torch.equal(conjugate_gradients(lambda u: singular * u, torch.zeros(2, 3)), torch.zeros(2, 3))


def test_a_region_is_a_measurement_by_a_mask():
    region = Region(torch.ones(3, 6, 8), SEEN, 0.3)
    assert measured(region) is region
    y, x = region.y[None].expand(2, -1, -1, -1), torch.randn(2, *SHAPE)
    assert torch.equal(region.operator.pinv(y), y)
    assert torch.equal(region.operator(x), x * SEEN)
    for other in (2 * region, lambda x0: x0.sum(dim=1)):
        with pytest.raises(ConfigError, match="needs objectives"):
            measured(other)


def test_masks_for_each_sample_reach_its_particles():
    x = torch.randn(6, *SHAPE)
    with rows_of_samples(2):  # as a run with two particles has them
        assert torch.equal(MADE["masks"](x)[2:4], x[2:4] * (1 - SEEN))
        assert torch.equal(MADE["mask"](x), x * SEEN)
    with pytest.raises(ConfigError, match="the mask has 3 rows, and there are 6 samples"):
        MADE["masks"](x)


def test_downsample_takes_means_of_blocks():
    x = torch.randn(2, *SHAPE)
    blocks = x.numpy().reshape(2, 3, 3, 2, 4, 2).mean(axis=(3, 5))
    assert np.allclose(Downsample(2)(x), blocks)


@pytest.mark.parametrize("sigma", [0.6, 1.3, 3.0])
def test_gaussian_blur_is_scipys(sigma):
    x = torch.randn(1, 1, 9, 12)
    expected = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), sigma, mode="wrap", truncate=4.0)
    assert np.allclose(GaussianBlur(sigma)(x)[0, 0], expected, atol=1e-13)
    cut = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), sigma, mode="wrap", radius=2)
    assert np.allclose(GaussianBlur(sigma, size=5)(x)[0, 0], cut, atol=1e-13)


def test_blur_is_scipys_convolution_and_its_adjoint_the_correlation():
    x = torch.randn(1, 1, 6, 8)
    plane, kernel = x[0, 0].numpy(), KERNEL.numpy()
    assert np.allclose(Blur(KERNEL)(x)[0, 0], scipy.ndimage.convolve(plane, kernel, mode="wrap"))
    assert np.allclose(Blur(KERNEL).adjoint(x)[0, 0], scipy.ndimage.correlate(plane, kernel, mode="wrap"))


@pytest.mark.parametrize("angle", [0, 90, 35, -60])
def test_motion_blur_is_the_mean_of_moved_pictures(angle):
    x, length, moves = torch.randn(1, 1, 11, 13), 5.0, 2000
    mean = np.zeros((11, 13))
    for s in length * ((np.arange(moves) + 0.5) / moves - 0.5):
        by = (-s * math.sin(math.radians(angle)), s * math.cos(math.radians(angle)))  # rows go down
        mean += scipy.ndimage.shift(x[0, 0].numpy(), by, order=1, mode="grid-wrap") / moves
    assert np.allclose(MotionBlur(length, angle)(x)[0, 0], mean, atol=1e-4)


def test_motion_blur_has_a_kernel_of_sum_one_along_its_line():
    kernel = MotionBlur(3, 0).kernel
    assert torch.allclose(kernel[2], torch.tensor([0.125, 0.875, 1.0, 0.875, 0.125]) / 3, atol=1e-4)
    assert torch.allclose(kernel.sum(), torch.tensor(1.0), atol=1e-14)
    rising = MotionBlur(9, 45).kernel
    assert rising[-1 - 2, 2] == pytest.approx(float(rising[2, -1 - 2]))  # symmetric about the origin
    assert rising[2, -1 - 2] > 0.05 > 1e-6 > rising[2, 2]  # up on the right, nothing up on the left


def test_compressed_sensing_is_its_matrix():
    a, d = CompressedSensing((2, 3, 5), 0.4, seed=5), 30
    matrix = a(torch.eye(d).reshape(d, 2, 3, 5)).T
    assert matrix.shape == (12, d)
    assert torch.allclose(matrix @ matrix.T, torch.eye(12), atol=1e-14)
    angle = 2 * np.pi * np.outer(a.rows, np.arange(d)) / d
    assert np.allclose(matrix, (np.cos(angle) + np.sin(angle)) / np.sqrt(d) * a.signs.numpy())
    assert set(a.signs.tolist()) == {-1, 1}
    assert len(set(a.rows.tolist())) == 12


def test_compressed_sensing_belongs_to_its_seed():
    x = torch.randn(2, *SHAPE)
    torch.manual_seed(0)
    first = CompressedSensing(SHAPE, 0.5, seed=1)(x)
    after = torch.rand(1)
    assert torch.equal(first, CompressedSensing(SHAPE, 0.5, seed=1)(x))
    assert not torch.allclose(first, CompressedSensing(SHAPE, 0.5, seed=2)(x))
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))  # the global generator is not touched


def test_measurements_have_the_noise_asked_for():
    a, x = Downsample(2), torch.randn(40, 3, 16, 16)
    assert torch.equal(a.measure(x), a(x))
    residual = (a.measure(x, 0.3, seed=4) - a(x)) / 0.3
    assert float(residual.std()) == pytest.approx(1, abs=0.02)
    assert torch.allclose((a.measure(x[:2], 0.3, seed=4) - a(x[:2])) / 0.3, residual[:2])  # row by row
    assert not torch.allclose(a.measure(x, 0.3, seed=5), a.measure(x, 0.3, seed=4))
    loss = Measurement(a, a.measure(x, 0.3), noise=0.3)(x)
    assert float(loss.mean()) == pytest.approx(3 * 8 * 8 / 2, rel=0.05)  # half a chi-square of 192 numbers


@pytest.mark.parametrize("stream", ["start", "step"])
def test_the_noise_of_a_measurement_is_not_the_samplers(stream):
    """Otherwise a sample of the same seed starts as the noise that was added to its target."""
    x = torch.zeros(1, 1, 40, 40)
    z = Mask(torch.ones(1)).measure(x, 1.0, seed=3).flatten()
    own = Noise(3, [0], (1, 40, 40))
    for step in range(3 if stream == "step" else 1):
        correlation = torch.corrcoef(torch.stack([z, own.draw(stream, step).flatten()]))[0, 1]
        assert abs(float(correlation)) < 0.1


def test_a_measurement_balances_the_prior_at_the_posterior_mean():
    """Prior N(0, I): there the objective's gradient is -x, by the normal equations, which numpy solves."""
    a = CompressedSensing((16,), 0.5, seed=2)
    matrix, y = a(torch.eye(16)).T.numpy(), a.measure(torch.randn(1, 16), 0.2)
    mean = np.linalg.solve(np.eye(16) + matrix.T @ matrix / 0.04, matrix.T @ y[0].numpy() / 0.04)
    x = torch.as_tensor(mean)[None].requires_grad_()
    gradient = torch.autograd.grad(Measurement(a, y, noise=0.2)(x).sum(), x)[0]
    assert torch.allclose(gradient, -x.detach(), atol=1e-12)


def test_a_measurement_guides_the_sampler():
    a = CompressedSensing((16,), 0.5, seed=2)
    y = a.measure(torch.randn(1, 16), 0.2)
    denoiser, settings = sg.GaussianDenoiser(torch.zeros(16), torch.eye(16)), {"batch": 4, "steps": 10, "seed": 1}
    guided = sg.sample(denoiser, loss=sg.SAG(Measurement(a, y, noise=0.2)), **settings).samples
    free = sg.sample(denoiser, **settings).samples
    assert (a(guided) - y).norm() < 0.7 * (a(free) - y).norm()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Mask(torch.zeros(4, 4)), "selects nothing"),
        (lambda: Mask(torch.ones(5))(torch.ones(1, 3, 4, 4)), "does not fit"),
        (lambda: Mask(torch.ones(2, 1, 4, 4))(torch.ones(3, 3, 4, 4)), "2 rows"),
        (lambda: Downsample(0), "positive whole number"),
        (lambda: Downsample(1.5), "positive whole number"),
        (lambda: Downsample(3)(torch.ones(1, 3, 6, 8)), "no whole blocks"),
        (lambda: Blur(torch.ones(2, 3)), "odd sides"),
        (lambda: Blur(torch.ones(3)), "odd sides"),
        (lambda: GaussianBlur(0), "sigma"),
        (lambda: GaussianBlur(1.0, size=4), "odd and positive"),
        (lambda: MotionBlur(0, 30), "length"),
        (lambda: CompressedSensing(SHAPE, 0), "ratio"),
        (lambda: CompressedSensing(SHAPE, 1.1), "ratio"),
        (lambda: CompressedSensing(SHAPE, 0.5)(torch.ones(1, 3, 8, 6)), "not of"),
        (lambda: Downsample(2).solve(torch.ones(1, 3, 4, 4), ridge=-1.0), "ridge"),
        (lambda: dense(5, 5).singular(SHAPE), "no closed form"),
        (lambda: Downsample(2).measure(torch.ones(1, 3, 4, 4), noise=-1.0), "cannot be negative"),
    ],
)
def test_what_cannot_be_used_says_so(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()


def test_the_base_has_no_operator():
    with pytest.raises(NotImplementedError):
        LinearOperator().measure(torch.ones(1, 1, 2, 2))
