"""The strongest network of this size that we know, under its own recipe, to measure against.

Written from the description of xvel/cifar10-tiniest: 97,530 parameters; there 94.4 % on CIFAR-10 in
200 epochs (mean of 5). Its recipe: AdamW with batches of 256, learning rate up to 0.02 along a
cosine in 2 epochs and down to 0.002, mean of the weights with decay 0.999 as the final model; flip,
crop by up to 4 pixels, rotation by up to 15°, sharpening, color; mixup, one image's share growing
with the epochs from 0 to a half. Trains, evaluates after each epoch, prints JSON:

    python tests/benchmarks/peer.py FOLDER --epochs 200

The network alone, under any recipe of the package:

    cifar-cnn train --model tests/benchmarks/peer.py:Peer
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_cnn import resolve_settings
from cifar_cnn.allocator import keep_freed_memory
from cifar_cnn.data.augment import Draws, apply
from cifar_cnn.data.dataset import REFERENCE
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.inference.metrics import judge
from cifar_cnn.inference.trained import predict_log_probabilities

BATCH_SIZE, LR, DECAY = 256, 0.02, 0.999
COLOR = torch.tensor([0.1, 0.1, 0.5])
"""Most that brightness, contrast and saturation change by, as a fraction."""
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""From R, G and B to luma and two coordinates of color (NTSC, 1953)."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalization of each position over its channels, (N, C, H, W)."""

    def forward(self, maps):
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)


class MixingBlock(nn.Module):
    """Quarters of the channels filtered at four scales, then a gated pointwise unit."""

    def __init__(self, channels):
        super().__init__()
        quarter = channels // 4
        self.near = nn.Conv2d(quarter, quarter, 3, padding=1, groups=quarter)
        self.middle = nn.Conv2d(quarter, quarter, 7, padding=3, groups=quarter)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.far = nn.Conv2d(quarter, quarter, 7, padding=9, dilation=3, groups=quarter)
        self.norm = ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.skip_scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, maps):
        same, near, middle, far = maps.chunk(4, dim=1)
        scales = [same, self.near(near), self.middle(middle), self.far(self.pool(far))]
        gate, value = self.expand(self.norm(torch.cat(scales, dim=1))).chunk(2, dim=1)
        return self.project(gate * torch.tanh(gate.exp()) * value) + self.skip_scale * maps


class Peer(nn.Module):
    """48 channels at 32×32, 80 at 16×16, three blocks each; (N, 3, H, W) to logits."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), ChannelNorm(48))
        self.fine = nn.Sequential(*(MixingBlock(48) for _ in range(3)))
        self.halve = nn.Sequential(
            nn.Conv2d(48, 80, 4, stride=2, padding=1, groups=16), ChannelNorm(80)
        )
        self.coarse = nn.Sequential(*(MixingBlock(80) for _ in range(3)))
        self.classify = nn.Linear(80, 10)

    def forward(self, images):
        maps = self.coarse(self.halve(self.fine(self.stem(images))))
        return self.classify(maps.mean((2, 3)))


def augmented(images):
    """Return normalized images, each of these bytes (N, 3, H, W) changed by draws of its own."""
    count = len(images)

    def uniform(*size):
        return torch.rand(count, *size) * 2 - 1

    def of(chance):
        return torch.rand(count) < chance

    angle = torch.deg2rad(15 * uniform())
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    recolored = of(0.9)
    draws = Draws(
        flip=of(0.5),
        shift=torch.randint(-4, 5, (count, 2)),
        color=1 + recolored[:, None] * COLOR * uniform(3),
        rotation=torch.stack([cos, sin, zero, -sin, cos, zero], dim=1).view(-1, 2, 3),
        **dict.fromkeys(("warped", "affine", "cutout")),
    )
    turned = turn_hue(apply(images, draws, 0), 0.05 * recolored * uniform())
    return sharpened(turned, 1 + of(0.95) * (0.6 + 0.6 * uniform()))


def turn_hue(images, turns):
    """Turn the colors of normalized images about gray, each by its fraction of a whole turn."""
    mean, std = (torch.tensor(each)[:, None, None] for each in REFERENCE)
    luma, first, second = torch.einsum("ij,njhw->inhw", YIQ, images * std + mean).unbind()
    cos, sin = (
        (2 * torch.pi * turns)[:, None, None].cos(),
        (2 * torch.pi * turns)[:, None, None].sin(),
    )
    there = torch.stack([luma, cos * first - sin * second, sin * first + cos * second])
    back = torch.einsum("ij,jnhw->nihw", YIQ.inverse(), there)
    return (back - mean) / std


def sharpened(images, factors):
    """Blend images with their smoothed inside; factors above 1 sharpen (torchvision's kernel)."""
    kernel = torch.ones(3, 1, 3, 3)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel / 13, groups=3)
    return torch.lerp(smooth, images, factors[:, None, None, None])


def mixed(images, labels, most):
    """Return images mixed with others of the batch, the others' labels and their shares."""
    partners = torch.randperm(len(labels))
    share = most * torch.rand(len(labels))
    weight = share[:, None, None, None]
    return (1 - weight) * images + weight * images[partners], labels[partners], share


def learn(model, optimizer, images, labels, others, share):
    """Do one step, and return its loss."""
    output = model(images)
    right = F.cross_entropy(output, labels, reduction="none")
    other = F.cross_entropy(output, others, reduction="none")
    loss = ((1 - share) * right + share * other).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def train(model, data, evaluation, arguments):
    """Train in place; return the accuracy of the mean weights after minutes of training."""
    epochs = arguments.epochs
    steps = len(data) // BATCH_SIZE
    optimizer = torch.optim.AdamW(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        LR,
        epochs * steps,
        pct_start=arguments.warmup_epochs / epochs,
        cycle_momentum=False,
        final_div_factor=0.4,
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    minutes, curve = 0.0, []
    for epoch in range(epochs):
        began = time.perf_counter()
        total = 0.0
        for chosen in torch.randperm(len(data))[: steps * BATCH_SIZE].split(BATCH_SIZE):
            batch, own = augmented(data.images[chosen]), data.labels[chosen]
            batch, others, share = mixed(batch, own, min(epoch / epochs, 0.5))
            batch = batch.contiguous(memory_format=torch.channels_last)
            total += learn(model, optimizer, batch, own, others, share).item()
            schedule.step()
            average.update_parameters(model)
        minutes += (time.perf_counter() - began) / 60
        print(f"epoch {epoch}: train loss {total / steps:.4f}", flush=True, file=sys.stderr)
        curve.append({"minutes": minutes, "accuracy": accuracy(average, evaluation)})
    return curve


def accuracy(model, evaluation):
    answers = predict_log_probabilities(model, evaluation.images, torch.device("cpu"), "fp32")
    return judge(answers, evaluation).accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--limit-train", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--warmup-epochs", type=float, default=2)
    arguments = parser.parse_args()
    keep_freed_memory()
    data = {"dataset": "folder", "data_dir": arguments.folder}
    settings = resolve_settings(data | {"limit_train": arguments.limit_train})
    torch.manual_seed(0)
    model = Peer().to(memory_format=torch.channels_last)
    print(
        json.dumps({"curve": train(model, load_train(settings)[0], load_test(settings), arguments)})
    )


if __name__ == "__main__":
    main()
