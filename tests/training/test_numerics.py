"""The reference training, written out as a plain PyTorch loop, against the library's.

Same process, same draws, channels-last memory, so that a refactor cannot change the mathematics
unnoticed. In float64 and equal to 1e-9: the library adds up the sums of batch normalization in
another order than torch, and 20 steps make ten thousand times as much of a difference in the last
bit. Dropout's draws are positions along the memory; SGD is torch's fused kernel in both.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cifar_cnn.data.augment import Purpose, derive_seed, draw, generator
from cifar_cnn.data.synthetic import draw_synthetic
from cifar_cnn.models.baseline import Baseline
from cifar_cnn.models.layers.dropout import dropped_positions
from cifar_cnn.settings import resolve_settings
from cifar_cnn.training.trainer import Trainer

STEPS = 20
BATCH = 64
SEED = 3


class PlainNetwork(nn.Module):
    """The reference network as its README's table lists it."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24)
        self.pointwise = nn.Conv2d(24, 48, 1)
        self.norm2 = nn.BatchNorm2d(48)
        self.dilated = nn.Conv2d(48, 64, 3, padding=2, dilation=2)
        self.norm3 = nn.BatchNorm2d(64)
        self.conv4 = nn.Conv2d(64, 96, 3, stride=2, padding=1)
        self.norm4 = nn.BatchNorm2d(96)
        self.conv5 = nn.Conv2d(96, 128, 3, stride=2, padding=1)
        self.norm5 = nn.BatchNorm2d(128)
        self.classifier = nn.Conv2d(128, 10, 1)

    def forward(self, x):
        def rest(x, norm):
            x = F.relu(norm(x))
            kept = torch.ones(x.numel())
            kept[dropped_positions(x.numel(), 0.02)] = 0
            count, channels, height, width = x.shape
            kept = kept.view(count, height, width, channels).permute(0, 3, 1, 2)
            return x * (1 / 0.98) * kept

        x = rest(self.conv1(x.double()), self.norm1)
        x = rest(self.pointwise(self.depthwise(x)), self.norm2)
        x = rest(self.dilated(x), self.norm3)
        x = rest(self.conv4(x), self.norm4)
        x = rest(self.conv5(x), self.norm5)
        x = self.classifier(F.adaptive_avg_pool2d(x, 1))
        return F.log_softmax(x.view(-1, 10).float(), dim=1)


class DoublePrecision(Baseline):
    def forward(self, images):
        return super().forward(images.double())


def plain_batch(images, draws, first):
    """Flip, normalize, warp and cut out image by image; the first one has the draws of `first`."""
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
    std = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
    batch = []
    for index, pixels in enumerate(images, first):
        image = pixels.flip(-1) if draws.flip[index] else pixels
        image = torch.addcmul(-mean / std, image.float(), 1 / (255 * std))[None]
        if index in draws.warped:
            affine = draws.affine[draws.warped == index]
            grid = F.affine_grid(affine, image.shape, align_corners=True)
            image = F.grid_sample(image, grid, padding_mode="reflection", align_corners=True)
        top, left = draws.cutout[index].tolist()
        if top >= 0:
            image = image.clone()
            image[:, :, top : top + 16, left : left + 16] = 0
        batch.append(image)
    return torch.cat(batch).contiguous(memory_format=torch.channels_last)


def plain_training(initial, split, settings):
    model = PlainNetwork().double()
    model.load_state_dict(dict(zip(model.state_dict(), initial.values(), strict=True)))
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    order = torch.randperm(len(split), generator=generator(SEED, Purpose.ORDER, 0))
    draws = draw(settings, len(split), generator(SEED, Purpose.AUGMENTATION, 0))
    losses = []
    for step in range(STEPS):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        images = plain_batch(split.images[chosen], draws, step * BATCH)
        torch.manual_seed(derive_seed(SEED, Purpose.NETWORK, 0, step))
        loss = F.nll_loss(model(images), split.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


def test_20_steps_of_reference_equal_a_plain_loop():
    settings = resolve_settings(
        {"recipe": "reference", "dataset": "synthetic", "epochs": 1, "seed": SEED}
    )
    split = draw_synthetic("test").limited(STEPS * BATCH)
    torch.manual_seed(SEED)
    model = DoublePrecision(dropout=settings.dropout).double()
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    expected_losses, expected_state = plain_training(initial, split, settings)

    losses, totals = [], [0.0]

    def listen(event):
        totals.append(event.loss * BATCH * (event.batch + 1))
        losses.append((totals[-1] - totals[-2]) / BATCH)

    trainer = Trainer(settings, model, split, split, tell=listen)
    (row,) = trainer.epochs()
    assert losses == pytest.approx(expected_losses, abs=1e-9)
    assert row.last_loss == pytest.approx(expected_losses[-1], abs=1e-9)
    for (name, value), expected in zip(
        model.state_dict().items(), expected_state.values(), strict=True
    ):
        assert value.dtype == expected.dtype
        difference = (value - expected).double().abs().max()
        assert float(difference) <= 1e-9 * float(expected.double().abs().max()), name
