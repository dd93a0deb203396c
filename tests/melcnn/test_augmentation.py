import pytest
import torch

from melcnn import augmentation
from melcnn.config import Training

# 1 + 4 * 2 columns: shift, two spans of frames, two of mels.
NOTHING = [0, 0, 0, 0, 0, 0, 0, 0, 0]


def seen(x, **change):
    view = list(NOTHING)
    for name, value in change.items():
        view[{"shift": 0, "frames": 1, "more_frames": 3, "mels": 5, "more_mels": 7}[name]] = value
        if isinstance(value, tuple):
            at = {"frames": 1, "more_frames": 3, "mels": 5, "more_mels": 7}[name]
            view[at : at + 2] = value
    return augmentation.apply(x, torch.tensor(view, dtype=torch.int32))


def test_a_view_that_changes_nothing():
    x = torch.randn(3, 5)
    assert torch.equal(seen(x), x)


def test_a_shift_fills_up_with_the_end():
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert seen(x, shift=1).tolist() == [[1, 1, 2, 3]]
    assert seen(x, shift=-2).tolist() == [[3, 4, 4, 4]]


def test_masks_are_zero_and_come_after_the_shift():
    x = torch.arange(1.0, 13.0).view(3, 4)
    assert seen(x, frames=(1, 3), mels=(2, 3)).tolist() == [[1, 0, 0, 4], [5, 0, 0, 8], [0, 0, 0, 0]]
    assert seen(x, shift=1, frames=(0, 1), more_frames=(3, 4), more_mels=(0, 1)).tolist() == [
        [0, 0, 0, 0],
        [0, 5, 6, 0],
        [0, 9, 10, 0],
    ]


def test_what_is_drawn_is_in_range_and_reaches_its_ends():
    training = Training(shift=0.1, time_mask=0.2, mel_mask=0.25)
    views = augmentation.draw(training, 5000, n_mels=20, frames=50, generator=torch.Generator().manual_seed(0))
    assert views.shape == (5000, augmentation.VIEW) and views.dtype == torch.int32
    assert sorted(views[:, 0].unique().tolist()) == list(range(-5, 6))  # 0.1 of 50 frames, either way
    for first, length, widest in ((1, 50, 10), (3, 50, 10), (5, 20, 5), (7, 20, 5)):
        begin, end = views[:, first], views[:, first + 1]
        assert sorted((end - begin).unique().tolist()) == list(range(widest + 1))
        assert begin.min() == 0 and end.max() == length


def test_without_augmentation_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert augmentation.draw(Training(), 10, 20, 50, generator) is None
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_number_of_dimensions(batch):
    x, views = torch.randn(*batch, 4, 6), torch.zeros(*batch, augmentation.VIEW, dtype=torch.int32)
    views[..., 0] = 2
    assert torch.equal(augmentation.apply(x, views)[..., 2:], x[..., :-2])
