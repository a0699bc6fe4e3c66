"""The strongest network of this size that we know, under its own recipe, to measure against.

Written from the description of xvel/cifar10-tiniest: 97,530 parameters; there 94.4 % on CIFAR-10 in
200 epochs (mean of 5). Its recipe: AdamW with batches of 256, learning rate up to 0.02 along a
cosine in 2 epochs and down to 0.002, mean of the weights with decay 0.999 as the final model; flip,
crop by up to 4 pixels, rotation by up to 15°, sharpening, color; mixup, one image's share growing
with the epochs from 0 to a half. Trains, evaluates the test images once at the end, prints JSON:

    python tests/benchmarks/peer.py FOLDER --epochs 200 --batch-size 256 --ema 0.999

The network alone, under any recipe of the package:

    cifar-cnn train --model tests/benchmarks/peer.py:Peer
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cifar_cnn import resolve_settings
from cifar_cnn.allocator import keep_freed_memory
from cifar_cnn.data.augment import Draws, apply
from cifar_cnn.data.dataset import REFERENCE
from cifar_cnn.data.load import load_test, load_train
from cifar_cnn.inference.evaluate import judge
from cifar_cnn.inference.forward import predict_log_probabilities

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
    count, device = len(images), images.device

    def uniform(*size):
        return torch.rand(count, *size, device=device) * 2 - 1

    def of(chance):
        return torch.rand(count, device=device) < chance

    angle = torch.deg2rad(15 * uniform())
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    recolored = of(0.9)
    draws = Draws(
        flip=of(0.5),
        shift=torch.randint(-4, 5, (count, 2), device=device),
        color=1 + recolored[:, None] * COLOR.to(device) * uniform(3),
        rotation=torch.stack([cos, sin, zero, -sin, cos, zero], dim=1).view(-1, 2, 3),
        **dict.fromkeys(("warped", "affine", "cutout")),
    )
    turned = turn_hue(apply(images, draws, 0), 0.05 * recolored * uniform())
    return sharpened(turned, 1 + of(0.95) * (0.6 + 0.6 * uniform()))


def turn_hue(images, turns):
    """Turn the colors of normalized images about gray, each by its fraction of a whole turn."""
    mean, std = (torch.tensor(each, device=images.device)[:, None, None] for each in REFERENCE)
    luma, first, second = torch.einsum(
        "ij,njhw->inhw", YIQ.to(images.device), images * std + mean
    ).unbind()
    cos, sin = (
        (2 * torch.pi * turns)[:, None, None].cos(),
        (2 * torch.pi * turns)[:, None, None].sin(),
    )
    there = torch.stack([luma, cos * first - sin * second, sin * first + cos * second])
    back = torch.einsum("ij,jnhw->nihw", YIQ.inverse().to(images.device), there)
    return (back - mean) / std


def sharpened(images, factors):
    """Blend images with their smoothed inside; factors above 1 sharpen (torchvision's kernel)."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel / 13, groups=3)
    return torch.lerp(smooth, images, factors[:, None, None, None])


def mixed(images, labels, most):
    """Return images mixed with others of the batch, the others' labels and their shares."""
    partners = torch.randperm(len(labels), device=labels.device)
    share = most * torch.rand(len(labels), device=labels.device)
    weight = share[:, None, None, None]
    return (1 - weight) * images + weight * images[partners], labels[partners], share


class Step:
    """Forward, loss, backward, update; on CUDA captured as one graph, as the package does.

    Args:
        model: on its device.
        lr: learning rate, in a tensor where a captured step has to read it.
    """

    def __init__(self, model, lr):
        device = next(model.parameters()).device
        on_gpu = device.type == "cuda"
        self.model = model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), torch.tensor(lr, device=device) if on_gpu else lr, capturable=on_gpu
        )
        self.side = torch.cuda.Stream() if on_gpu else None
        self.done, self.graph, self.inputs, self.loss = 0, None, (), None

    def __call__(self, *inputs):
        """Learn from images, labels, the labels mixed in and their shares; return the loss."""
        self.done += 1
        if self.side is None:
            return self.learn(*inputs)
        if self.done <= 3:  # capturing wants some steps before it, on a stream of their own
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                loss = self.learn(*inputs)
            torch.cuda.current_stream().wait_stream(self.side)
            return loss
        if self.graph is None:
            self.inputs, self.graph = [each.clone() for each in inputs], torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.loss = self.learn(*self.inputs)
        for mine, each in zip(self.inputs, inputs, strict=True):
            mine.copy_(each)
        self.graph.replay()
        return self.loss

    def learn(self, images, labels, others, share):
        output = self.model(images)
        right = F.cross_entropy(output, labels, reduction="none")
        other = F.cross_entropy(output, others, reduction="none")
        loss = ((1 - share) * right + share * other).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def train(model, data, evaluation, arguments):
    """Train in place; return the mean of the weights, images per second, the curve."""
    size, epochs = arguments.batch_size, arguments.epochs
    steps = len(data) // size
    images, labels = (each.to(arguments.device) for each in (data.images, data.labels))
    learn = Step(model, arguments.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        learn.optimizer,
        arguments.lr,
        epochs * steps,
        pct_start=arguments.warmup_epochs / epochs,
        cycle_momentum=False,
        final_div_factor=0.4,
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(arguments.ema))
    minutes, curve = 0.0, []
    for epoch in range(epochs):
        began = time.perf_counter()
        total = torch.zeros((), device=images.device)
        for chosen in torch.randperm(len(data))[: steps * size].to(images.device).split(size):
            batch, own = augmented(images[chosen]), labels[chosen]
            batch, others, share = mixed(batch, own, min(epoch / epochs, 0.5))
            batch = batch.contiguous(memory_format=torch.channels_last)
            total += learn(batch, own, others, share)
            schedule.step()
            average.update_parameters(model)
        loss = total.item() / steps
        minutes += (time.perf_counter() - began) / 60
        print(f"epoch {epoch}: train loss {loss:.4f}", flush=True, file=sys.stderr)
        if arguments.curve:
            curve.append({"minutes": minutes, "accuracy": accuracy(average, evaluation)})
    return average, epochs * steps * size / (60 * minutes), curve


def accuracy(model, evaluation):
    device = next(model.parameters()).device
    answers = predict_log_probabilities(model, evaluation.images, device, "fp32")
    return judge(answers, evaluation).accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit-train", type=int, default=50_000)
    parser.add_argument("--val-size", type=int, default=0, help="evaluate these, not the test set")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--warmup-epochs", type=float, default=2)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--curve", action="store_true", help="evaluate after each epoch too")
    arguments = parser.parse_args()
    if arguments.epochs <= arguments.warmup_epochs:
        parser.error("--epochs has to be more than --warmup-epochs")
    keep_freed_memory()
    settings = resolve_settings(
        {
            "dataset": "folder",
            "data_dir": arguments.folder,
            "limit_train": arguments.limit_train,
            "val_size": arguments.val_size,
        }
    )
    data, evaluation = load_train(settings)
    torch.manual_seed(arguments.seed)
    torch.backends.cudnn.benchmark = True
    model = Peer().to(arguments.device, memory_format=torch.channels_last)
    evaluation = evaluation or load_test(settings)
    average, speed, curve = train(model, data, evaluation, arguments)
    report = {
        **{name: value for name, value in vars(arguments).items() if name != "folder"},
        "device": str(arguments.device),
        "images_per_second": speed,
        "accuracy": accuracy(average, evaluation),
        "accuracy_of_last_weights": accuracy(model, evaluation),
        "curve": curve,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
