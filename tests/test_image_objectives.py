"""Palette, Edges, MotionField and Preprocess against scipy, pillow, central differences and their own meaning."""

import numpy as np
import PIL.Image
import pytest
import scipy.cluster.vq
import scipy.ndimage
import torch
from conftest import relative
from test_objectives import by_differences, gradient

from symguide.errors import ConfigError
from symguide.objectives.edges import Edges, edge_strength
from symguide.objectives.motion import MotionField
from symguide.objectives.palette import Palette
from symguide.objectives.preprocess import Preprocess
from symguide.per_sample import rows_of_samples

B, C, H, W = SHAPE = 3, 3, 5, 7


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


def rand(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


REFERENCES, FLOWS = 2 * rand(*SHAPE) - 1, 3 * rand(B, 2, H, W) - 1.5
FOR_ALL = {
    "palette": Palette(2 * rand(4, 3) - 1, torch.tensor([0.4, 0.3, 0.2, 0.1])),
    "edges": Edges(rand(H, W)),
    "edges-rough": Edges(rand(H, W), smoothing=0),
    "motion": MotionField(REFERENCES[0], FLOWS[0]),
    "motion-mask": MotionField(REFERENCES[1], FLOWS[1], rand(H, W)),
}
FOR_EACH = {
    "palette": Palette(2 * rand(3, 4, 3) - 1, rand(3, 4) + 0.1),
    "edges": Edges(rand(3, 1, H, W)),
    "motion": MotionField(REFERENCES, FLOWS, rand(3, 1, H, W)),
}
FOR_ONE = {
    "palette": lambda k: Palette(2 * rand(3, 4, 3)[k] - 1, rand(3, 4)[k] + 0.1),
    "edges": lambda k: Edges(rand(3, 1, H, W)[k, 0]),
    "motion": lambda k: MotionField(REFERENCES[k], FLOWS[k], rand(3, 1, H, W)[k, 0]),
}


@pytest.mark.parametrize("objective", [*FOR_ALL.values(), *FOR_EACH.values()])
def test_gradients(objective):
    x0 = torch.rand(SHAPE) * 2 - 1
    loss = objective(x0)
    assert loss.shape == (B,)
    expected = by_differences(objective, x0)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(gradient(objective, x0), expected, atol=1e-8)


@pytest.mark.parametrize("objective", FOR_ALL.values(), ids=FOR_ALL)
def test_a_batch_is_a_loop(objective):
    x0 = torch.rand(SHAPE) * 2 - 1
    assert torch.allclose(objective(x0), torch.cat([objective(x[None]) for x in x0]), rtol=1e-13)
    assert len(set(objective(x0).tolist())) == B


@pytest.mark.parametrize("name", FOR_EACH)
def test_targets_for_each_sample_reach_its_particles(name):
    x0 = torch.rand(2 * B, C, H, W) * 2 - 1
    alone = [FOR_ONE[name](k // 2)(x0[k : k + 1]) for k in range(2 * B)]
    with rows_of_samples(2):  # as a run with two particles has them
        assert torch.allclose(FOR_EACH[name](x0), torch.cat(alone), rtol=1e-13)
    with pytest.raises(ConfigError, match=f"has {B} rows, and there are {2 * B} samples"):
        FOR_EACH[name](x0)


@pytest.mark.parametrize("objective", FOR_ALL.values(), ids=FOR_ALL)
def test_narrow_types_are_widened(objective):
    x0 = torch.rand(SHAPE) * 2 - 1
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        leaf = x0.to(dtype).requires_grad_()
        loss = objective(leaf)
        assert loss.dtype == torch.float32
        assert relative(loss.detach(), objective(x0)) < tolerance
        narrow = torch.autograd.grad(loss.sum(), leaf)[0]
        assert relative(narrow.double(), gradient(objective, x0)) < 5 * tolerance


# Palette


def test_palette_is_its_equation():
    colours, weights, b = np.array([[0.9, -0.5, 0.1], [-0.3, 0.2, -0.8]]), np.array([0.75, 0.25]), 4.0
    x0 = torch.rand(1, 3, 2, 3) * 2 - 1
    pixels = x0[0].reshape(3, -1).T.numpy()
    near = np.exp(-b * ((pixels[:, None] - colours) ** 2).sum(2))
    shares = (near / near.sum(1, keepdims=True)).mean(0)
    expected = -np.log(near.sum(1)).mean() / b + (weights * np.log(weights / shares)).sum() / b
    made = Palette(torch.as_tensor(colours), torch.as_tensor(10 * weights), b)
    assert float(made(x0)) == pytest.approx(expected, rel=1e-12)


def test_palette_is_zero_where_the_shares_are_right_and_grows_from_there():
    colours = torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])

    def picture(reds):
        return colours[(torch.arange(8) >= reds).long()].T.reshape(1, 3, 2, 4)

    for weights, right in (((0.75, 0.25), 6), ((0.5, 0.5), 4)):
        losses = [float(Palette(colours, torch.tensor(weights), sharpness=10)(picture(reds))) for reds in range(9)]
        assert losses[right] == pytest.approx(0, abs=1e-12)
        assert losses[: right + 1] == sorted(losses[: right + 1], reverse=True)
        assert losses[right:] == sorted(losses[right:])
        assert min(losses[0], losses[8]) > 1 > losses[1]  # an unused colour is another matter than a rare one


def test_palette_descends_to_its_colours_and_uses_them_all():
    colours = torch.tensor([[0.9, -0.8, -0.8], [-0.8, -0.6, 0.9], [0.9, 0.9, -0.7], [-0.9, -0.9, -0.9]])
    x, palette = 0.3 * torch.randn(1, 3, 8, 8), Palette(colours)
    for _ in range(60):
        x = x - 0.1 * 8 * 8 * gradient(palette, x)  # the loss is a mean over pixels
    distance, owner = (x.flatten(2)[0].T[:, None] - colours).norm(dim=2).min(dim=1)
    assert distance.mean() < 0.05
    assert owner.bincount(minlength=4).min() > 5


def test_palette_of_a_picture_has_its_colours_and_shares():
    colours = torch.tensor([[0.5, -0.5, 0.0], [-1.0, 1.0, 1.0], [0.4, 0.9, -0.3]])
    owner = torch.tensor([0] * 10 + [1] * 24 + [2] * 6)[torch.randperm(40)]
    palette = Palette.of(colours[owner].T.reshape(3, 5, 8), colours=3)
    assert torch.allclose(palette.colours[0], colours[[1, 0, 2]])
    assert torch.allclose(palette.weights[0], torch.tensor([0.6, 0.25, 0.15]))
    two = Palette.of(torch.rand(2, 3, 4, 4), colours=5)
    assert two.colours.shape == (2, 5, 3)
    assert two(torch.rand(2, 3, 6, 6)).shape == (2,)


def test_palette_of_a_picture_is_as_good_a_k_means_as_scipys_and_the_same_again():
    picture = torch.rand(3, 12, 12) * 2 - 1
    pixels = picture.reshape(3, -1).T.numpy()
    guesses = np.random.default_rng(0).uniform(-1, 1, (20, 6, 3))
    distortion = min(scipy.cluster.vq.kmeans(pixels, guess)[1] for guess in guesses)
    palette = Palette.of(picture, colours=6)
    assert torch.equal(palette.colours, Palette.of(picture, colours=6).colours)
    _, distance = scipy.cluster.vq.vq(pixels, palette.colours[0].numpy())
    assert distance.mean() < 1.03 * distortion


def test_palette_of_a_picture_misses_no_colour():
    """Plain k-means++ does in a part of these: it puts two centres on one colour and one between two."""
    for _ in range(40):
        colours = torch.randint(0, 4, (8, 3)).unique(dim=0) / 1.5 - 1
        picture = colours[torch.arange(200) % len(colours)] + 0.15 * torch.randn(200, 3)  # beyond [-1, 1], as samples
        palette = Palette.of(picture.T.reshape(3, 10, 20), colours=len(colours))
        assert torch.cdist(colours, palette.colours[0]).amin(dim=1).max() < 0.25


# Edges


def scipys_edges(picture):
    luminance = np.tensordot([0.299, 0.587, 0.114], (picture.numpy() + 1) / 2, axes=1)
    right, down = (scipy.ndimage.sobel(luminance, axis=a, mode="nearest") / 8 for a in (1, 0))
    return np.sqrt(right**2 + down**2 + 0.01**2) - 0.01


def test_edges_are_scipys():
    picture, sketch = torch.rand(3, 8, 9) * 2 - 1, torch.rand(8, 9)
    strength = scipys_edges(picture)
    assert np.allclose(edge_strength(picture[None])[0, 0], strength, atol=1e-12)
    for sigma in (0.7, 1.5):
        a, b = (scipy.ndimage.gaussian_filter(e, sigma, mode="nearest") for e in (strength, sketch.numpy()))
        expected = 1 - (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
        assert float(Edges(sketch, sigma)(picture[None])) == pytest.approx(expected, abs=1e-6)


def test_edges_of_a_picture_are_met_by_it_alone():
    pictures = torch.rand(2, 3, 10, 10) * 2 - 1
    objective = Edges.of(pictures[0])
    same, other = objective(pictures).tolist()
    assert abs(same) < 1e-5 < 0.02 < other
    assert torch.allclose(Edges.of(pictures)(pictures), torch.zeros(2), atol=1e-5)


def square(left, contrast=1.0):
    picture = torch.full((1, 3, 24, 24), -0.5 * contrast)
    picture[..., 6:16, left : left + 10] = 0.5 * contrast
    return picture


def test_edges_ask_where_and_not_how_strong():
    objective = Edges.of(square(4))
    losses = [float(objective(square(left))) for left in (4, 5, 6, 8, 12)]
    assert losses == sorted(losses)
    assert losses[1] < 0.25 < losses[-1] < 1
    assert float(objective(square(4, contrast=-1))) == pytest.approx(losses[0], abs=1e-12)
    assert float(objective(square(4, contrast=0.3))) < 0.01


def test_edges_pull_an_edge_toward_the_line():
    """A descent step moves luminance up where the square must grow and down where it must shrink."""
    pull = -gradient(Edges.of(square(5)), square(4))[0].sum(0)
    assert pull[10, 14] > 0 > pull[10, 4]


def test_edges_of_a_flat_picture_are_smooth():
    flat = torch.zeros(1, 3, 8, 8)
    objective = Edges(torch.eye(8))
    assert float(objective(flat)) == 1
    assert torch.equal(gradient(objective, flat), flat)
    noisy = flat + 1e-7 * torch.randn(1, 3, 8, 8)
    assert gradient(objective, noisy).abs().max() < 1e-2


# MotionField


def flow_of(right, down, height=H, width=W):
    return torch.tensor([right, down], dtype=torch.float64)[:, None, None].expand(2, height, width)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (2, 0), (0, -1), (-3, 2)])
def test_motion_by_whole_pixels_is_met_by_the_shifted_picture(right, down):
    reference = torch.rand(C, H, W) * 2 - 1
    moved = torch.rand(C, H, W) * 2 - 1  # what moves in from outside may be anything
    rows, columns = np.mgrid[:H, :W]
    inside = (rows + down >= 0) & (rows + down < H) & (columns + right >= 0) & (columns + right < W)
    for r, c in zip(rows[inside], columns[inside], strict=True):
        moved[:, r + down, c + right] = reference[:, r, c]
    objective = MotionField(reference, flow_of(right, down))
    assert objective.visible.sum() == inside.sum()
    assert float(objective(moved[None])) == pytest.approx(0, abs=1e-15)
    assert float(objective(moved[None].float())) == pytest.approx(0, abs=1e-8)
    if (right, down) != (0, 0):
        assert float(objective(reference[None])) > 0.1
        assert float(MotionField(reference, flow_of(-right, -down))(moved[None])) > 0.1


def test_motion_is_scipys_interpolation():
    reference, x0 = REFERENCES[0], torch.rand(1, C, H, W) * 2 - 1
    flow, mask = FLOWS[0], rand(H, W)
    rows, columns = np.mgrid[:H, :W] + flow.numpy()[::-1]
    inside = (rows >= 0) & (rows <= H - 1) & (columns >= 0) & (columns <= W - 1)
    back = np.stack([scipy.ndimage.map_coordinates(p, [rows, columns], order=1, mode="nearest") for p in x0[0].numpy()])
    apart = (np.sqrt((back - reference.numpy()) ** 2 + 1e-4) - 0.01).mean(0)
    objective = MotionField(reference, flow, mask)
    seen = np.where(inside, mask.numpy(), 0) * (objective.visible[0, 0].numpy() > 0)
    assert 0 < (seen > 0).sum() < inside.sum() < H * W
    assert float(objective(x0)) == pytest.approx((apart * seen).sum() / seen.sum(), rel=1e-10)


def test_motion_hides_what_is_covered():
    """An object of two columns moves right over the background: what it lands on is not asked for, itself is."""
    flow = torch.zeros(2, 3, 8)
    flow[0, :, 1:3] = 4
    objective = MotionField(torch.rand(C, 3, 8), flow)
    assert objective.visible[0, 0, 1].tolist() == [1, 1, 1, 1, 1, 0, 0, 1]
    picture = torch.rand(1, C, 3, 8)
    grown = gradient(objective, picture)[0].abs().sum((0, 1))
    assert (grown[[0, 3, 4, 5, 6, 7]] > 0).all()
    assert (grown[[1, 2]] == 0).all()  # where it left is the model's to fill


def test_a_turn_hides_nothing_of_itself():
    rows, columns = torch.meshgrid(torch.arange(15.0) - 7, torch.arange(15.0) - 7, indexing="ij")
    flow = torch.stack([0.94 * columns - 0.34 * rows - columns, 0.34 * columns + 0.94 * rows - rows])
    objective = MotionField(torch.rand(C, 15, 15), flow)
    assert objective.visible[0, 0, 4:11, 4:11].all()


def test_motion_counts_only_the_mask():
    mask = torch.zeros(H, W)
    mask[:, :3] = 1
    objective = MotionField(REFERENCES[0], flow_of(0, 0), mask)
    x0 = REFERENCES[:1].clone()
    x0[..., 3:] = 1
    assert float(objective(x0)) == 0
    x0[..., 0] += 0.5  # a third of what counts
    assert float(objective(x0)) == pytest.approx((np.sqrt(0.25 + 1e-4) - 0.01) / 3)


# Preprocess


def eight_bit(height, width):
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / 3 + k) * np.cos(y / (4 + k)) + 30 * ((x // 5 + y // 7) % 2) for k in range(3)]
    return PIL.Image.fromarray(np.stack(waves, axis=2).clip(0, 255).astype(np.uint8))


def as_sample(image):
    return torch.as_tensor(np.asarray(image) / 127.5 - 1).permute(2, 0, 1)[None]


def pillows(image, mean, std):
    """What a torchvision-style transform of the 8-bit picture gives."""
    return ((np.asarray(image) / 255.0 - mean) / std).transpose(2, 0, 1)


CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_preprocess_without_a_resize_is_pillows_picture_normalised():
    image = eight_bit(11, 14)
    assert np.allclose(Preprocess.imagenet()(as_sample(image))[0], pillows(image, *IMAGENET), atol=1e-12)
    assert np.allclose(Preprocess.clip(None)(as_sample(image))[0], pillows(image, *CLIP), atol=1e-12)


@pytest.mark.parametrize("size", [16, 50, 61])
def test_clip_resizes_the_shorter_side_and_keeps_the_middle_as_pillow_does(size):
    image = eight_bit(50, 70)
    width = 70 * size // 50
    left = round((width - size) / 2)
    resized = image.resize((width, size), PIL.Image.Resampling.BICUBIC).crop((left, 0, left + size, size))
    made = Preprocess.clip(size)(as_sample(image))[0].numpy()
    assert made.shape == (3, size, size)
    std = np.array(CLIP[1])[:, None, None]
    assert np.abs((made - pillows(resized, *CLIP)) * std * 255).max() < 1.6  # pillow rounds to levels, twice
    upright = Preprocess.clip(size)(as_sample(image.transpose(PIL.Image.Transpose.TRANSPOSE)))[0].numpy()
    assert np.allclose(upright, made.transpose(0, 2, 1))


@pytest.mark.parametrize(("mode", "filtering"), [("bicubic", "BICUBIC"), ("bilinear", "BILINEAR")])
def test_resizes_are_pillows_to_round_off(mode, filtering):
    """Pillow's float pictures are not rounded to levels."""
    image = eight_bit(37, 29)
    made = Preprocess((0, 0, 0), (1, 1, 1), (13, 18), mode)(as_sample(image))[0]
    for plane, channel in zip(made, image.split(), strict=True):
        exact = channel.convert("F").resize((18, 13), PIL.Image.Resampling[filtering])
        assert np.allclose(plane * 255, np.asarray(exact), atol=1e-3)


def test_imagenet_resizes_bilinearly():
    image = eight_bit(40, 40)
    made = Preprocess.imagenet(15)(as_sample(image))[0].numpy()
    expected = pillows(image.resize((15, 15), PIL.Image.Resampling.BILINEAR), *IMAGENET)
    assert np.abs((made - expected) * np.array(IMAGENET[1])[:, None, None] * 255).max() < 1.1


def test_preprocess_has_gradients_widens_and_is_a_loop():
    x = torch.rand(2, 3, 6, 8) * 2 - 1
    objective = lambda x: Preprocess.clip(4)(x).square().flatten(1).sum(1)  # noqa: E731
    assert torch.allclose(gradient(objective, x), by_differences(objective, x), atol=1e-6)
    assert torch.allclose(Preprocess.clip(4)(x)[1], Preprocess.clip(4)(x[1:])[0])
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        assert Preprocess.clip(4)(x.to(dtype)).dtype == torch.float32
        assert relative(Preprocess.clip(4)(x.to(dtype)), Preprocess.clip(4)(x)) < tolerance


PICTURE = torch.zeros(1, 3, 4, 4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Palette(torch.ones(3)), "colours are"),
        (lambda: Palette(torch.full((2, 3), 255.0)), "must lie in"),
        (lambda: Palette(torch.zeros(2, 3), torch.ones(3)), "2 positive numbers"),
        (lambda: Palette(torch.zeros(2, 3), torch.tensor([1.0, 0.0])), "2 positive numbers"),
        (lambda: Palette(torch.zeros(2, 3), sharpness=0.0), "sharpness"),
        (lambda: Palette(torch.zeros(2, 1))(PICTURE), "channels"),
        (lambda: Palette(torch.zeros(2, 5, 3))(PICTURE), "2 rows"),
        (lambda: Palette.of(PICTURE, 2), "no palette of 2"),
        (lambda: Edges(torch.ones(3, 4, 4)), "a sketch is"),
        (lambda: Edges(2 * torch.ones(4, 4)), "lie in"),
        (lambda: Edges(torch.zeros(4, 4)), "no lines"),
        (lambda: Edges.of(PICTURE), "no lines"),
        (lambda: Edges(torch.ones(4, 4), smoothing=-1), "negative"),
        (lambda: Edges(torch.ones(4, 5))(PICTURE), "resize"),
        (lambda: Edges(torch.ones(4, 4))(torch.zeros(1, 2, 4, 4)), "1 or 3 channels"),
        (lambda: MotionField(PICTURE, torch.zeros(2, 4, 5)), "the flow"),
        (lambda: MotionField(PICTURE, torch.zeros(2, 4, 4), torch.ones(3, 4, 4)), "the mask"),
        (lambda: MotionField(PICTURE, torch.zeros(2, 4, 4), 2 * torch.ones(4, 4)), "lie in"),
        (lambda: MotionField(PICTURE, torch.zeros(2, 4, 4), torch.zeros(4, 4)), "in sight"),
        (lambda: MotionField(PICTURE, torch.full((2, 4, 4), 9.0)), "in sight"),
        (lambda: MotionField(PICTURE, torch.zeros(2, 2, 4, 4), torch.ones(3, 1, 4, 4)), "2 flows and 3 masks"),
        (lambda: MotionField(PICTURE, torch.zeros(2, 4, 4))(torch.zeros(1, 3, 5, 5)), "the samples"),
        (lambda: Preprocess((0.0, 0.0), (1.0,)), "each channel"),
        (lambda: Preprocess((0.0,), (0.0,)), "positive"),
        (lambda: Preprocess((0.0,), (1.0,), mode="nearest"), "nearest"),
        (lambda: Preprocess.clip()(torch.zeros(1, 1, 4, 4)), "must be"),
    ],
)
def test_what_cannot_be_used_says_so(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()
