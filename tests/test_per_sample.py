import torch

from symguide.per_sample import direction, norm, rms


def test_norms_of_small_and_narrow_numbers():
    """In float16 squares of 1e-4 underflow and sums of squares of 300 overflow; the norms do not."""
    for value in (1e-4, 300.0):
        x = torch.full((2, 100), value, dtype=torch.float16)
        assert torch.allclose(norm(x).double(), torch.full((2, 1), 10 * value), rtol=1e-2)
        assert torch.allclose(rms(x).double(), torch.full((2, 1), value), rtol=1e-2)
        assert torch.allclose(direction(x).double(), torch.full((2, 100), 0.1), rtol=1e-2)
    tiny = torch.full((1, 4), 1e-7, dtype=torch.float16)
    assert torch.allclose(direction(tiny).double(), torch.full((1, 4), 0.5), rtol=1e-2)
    assert direction(torch.zeros(1, 4, dtype=torch.float16)).abs().max() == 0
