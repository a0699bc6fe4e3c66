import torch

from cifar_cnn.data.dataset import Split
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.batches import TrainingBatches


def flipped(epochs, **settings):
    """Return for each epoch which of 200 images, all dark left and bright right, were flipped."""
    images = torch.zeros(200, 3, 2, 2, dtype=torch.uint8)
    images[..., 1] = 255
    split = Split(images, torch.zeros(200, dtype=torch.int64), ("one",))
    settings = resolve_settings({"shift": 0, "batch_size": 50, **settings})
    batches = TrainingBatches(settings, split, torch.device("cpu"))
    result = torch.zeros(len(epochs), 200, dtype=torch.bool)
    for row, epoch in zip(result, epochs, strict=True):
        order = batches.order(epoch)
        for step in range(4):
            chosen = order[50 * step : 50 * step + 50]
            made = batches.augmented(chosen, epoch, step)
            row[chosen] = made[:, 0, 0, 0] > made[:, 0, 0, 1]
    return result


def test_alternate_flip_turns_each_image_in_every_other_epoch():
    first, second, third, much_later = flipped([0, 1, 2, 41], alternate_flip=True)
    assert torch.equal(second, ~first)
    assert torch.equal(third, first)
    assert torch.equal(much_later, second)
    assert 70 < int(first.sum()) < 130


def test_flips_are_drawn_anew_in_each_epoch_otherwise():
    first, second = flipped([0, 1])
    assert 70 < int((first == second).sum()) < 130


def test_alternate_flip_depends_on_the_seed():
    one, other = (flipped([0], alternate_flip=True, seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)
