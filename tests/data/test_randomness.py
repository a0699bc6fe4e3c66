import torch

from cifar_cnn.data.randomness import Purpose, derive_seed, generator


def test_a_draw_depends_on_seed_purpose_epoch_and_step_and_nothing_else():
    torch.manual_seed(1)
    first = torch.rand(4, generator=generator(7, Purpose.ORDER, 3, 5))
    torch.manual_seed(2)
    assert torch.equal(first, torch.rand(4, generator=generator(7, Purpose.ORDER, 3, 5)))


def test_draws_with_other_coordinates_differ():
    coordinates = [
        (seed, purpose, epoch, step)
        for seed in (0, 1, 2**62)
        for purpose in Purpose
        for epoch in range(5)
        for step in range(5)
    ]
    assert len({derive_seed(*each) for each in coordinates}) == len(coordinates)
