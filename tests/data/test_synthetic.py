import hashlib

import torch
import torch.nn.functional as F

from cifar_cnn.data.synthetic import CLASSES, draw_synthetic


def test_sizes_types_and_balance_are_as_promised():
    for name, count in (("train", 10_000), ("test", 2_000)):
        split = draw_synthetic(name)
        assert split.images.shape == (count, 3, 32, 32)
        assert split.images.dtype == torch.uint8
        assert torch.bincount(split.labels).tolist() == [count // 10] * 10
        assert split.classes == CLASSES


def test_the_images_are_the_same_always():
    digest = hashlib.sha256(draw_synthetic("test").images.numpy().tobytes()).hexdigest()
    assert digest == "1a982ee6ef3adb047c12f945ba178ad47b0f87ebd1e8fd1b2817f670fd6cf1e2"


def test_a_linear_classifier_on_pixels_stays_under_60_percent():
    train, test = draw_synthetic("train"), draw_synthetic("test")
    pixels, unseen = train.images.flatten(1) / 255, test.images.flatten(1) / 255
    torch.manual_seed(0)
    linear = torch.nn.Linear(3072, 10)
    optimizer = torch.optim.Adam(linear.parameters(), 1e-3)
    for _ in range(8):
        for chosen in torch.randperm(10_000).split(128):
            loss = F.cross_entropy(linear(pixels[chosen]), train.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    accuracy = (linear(unseen).argmax(dim=1) == test.labels).float().mean()
    assert 0.3 < accuracy < 0.6
