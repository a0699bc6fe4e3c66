"""Open trained networks, and get their answers for many images."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_cnn.data.dataset import (
    REFERENCE,
    Normalization,
    Progress,
    measure,
    normalize,
    parse_normalization,
)
from cifar_cnn.data.load import load_trained_on, source_of
from cifar_cnn.errors import CheckpointError, SettingsError, counted, first_few
from cifar_cnn.inference.onnx_file import open_onnx, takes_pixels
from cifar_cnn.models.blocks import folded
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import set_training
from cifar_cnn.models.output import log_probabilities
from cifar_cnn.models.registry import is_built_in
from cifar_cnn.runtime import (
    autocast,
    explaining_memory,
    resolve_device,
    resolve_threads,
    torch_threads,
    worker_threads,
)
from cifar_cnn.storage.naming import find_checkpoint
from cifar_cnn.storage.network import Network, open_network

BATCH_SIZE = {"cpu": 125, "cuda": 1000, "mps": 500}
"""On the CPU few enough for the maps to stay in its cache."""


class EvaluationStopped(Exception):  # noqa: N818 - nothing went wrong
    """`should_stop` said so before all images had passed."""


def open_trained(
    file: Path | str,
    overrides: Mapping[str, Any] | None = None,
    *,
    allow_bare: bool = True,
    normalization: str | None = None,
    progress: Progress | None = None,
) -> Network:
    """Return the network of a run or file with its weights, built on the device of its settings.

    A file from elsewhere takes its classes from the data set of its settings, and `normalization`:
    `cifar10` unless given, `dataset` for that of the training images, or MEAN/STD.
    """
    path = find_checkpoint(file)
    if allow_bare and path.suffix.lower() == ".onnx":
        network = open_onnx(path, overrides or {}, normalization)
    else:
        network = open_network(path, overrides)
    network = replace(network, device=resolve_device(network.settings.device))
    if network.checkpoint is None and allow_bare:
        network = _complete(network, normalization or "cifar10", progress)
    elif network.checkpoint is None:
        raise CheckpointError(
            f"{network.file} is a bare state dict, without classes and normalization: "
            "give a model.pt that cifar-cnn train has written"
        )
    elif normalization:
        raise SettingsError(
            f"{network.file} has the normalization that it was trained with: leave --normalization "
            "out, it is for files from elsewhere"
        )
    _ = network.model  # whatever is wrong with it is said before images are read
    return network


def _complete(network: Network, name: str, progress: Progress | None) -> Network:
    """Return the network of a file from elsewhere with classes and normalization, noting both."""
    settings = network.settings
    fixed = None if name == "dataset" else parse_normalization(name)
    classes = source_of(settings).classes
    normalization = fixed or measure(load_trained_on(settings, progress)[0].images)
    mean, std = (" ".join(f"{each:.4g}" for each in colors) for colors in normalization)
    height, width = settings.input_size
    kind = "has no metadata of cifar-cnn" if network.onnx else "is a bare state dict"
    colors = f"normalization {name} (mean {mean}, std {std})"
    note = (
        f"{network.file} {kind}: it is used with "
        f"{'uint8 colors' if takes_pixels(network.onnx) else colors}, images of {height}x{width} "
        f"(height x width) and the classes, in this order, {first_few(classes, 10)}"
    )
    return replace(network, classes=classes, normalization=normalization, notes=(note,))


@torch.no_grad()
def predict_log_probabilities(
    model: nn.Module,
    images: Tensor,
    device: torch.device,
    precision: str,
    *,
    normalization: Normalization = REFERENCE,
    tta: bool = False,
    threads: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Return float32 log-probabilities (N, classes) on the CPU for uint8 images (N, 3, H, W).

    The network is used in evaluation mode and left in the mode it was in. With `tta` the
    probabilities of each image and of its mirror image are averaged. On the CPU a built-in network
    takes a batch in each of the `threads` (0: all cores) at once; one of the user's own, which may
    keep things from layer to layer, takes one after another.
    """
    was_training = model.training
    set_training(model, False)
    batches = torch.split(images, BATCH_SIZE[device.type])
    at_once = device.type == "cpu" and is_built_in(model)
    layout = torch.channels_last if is_built_in(model) else torch.contiguous_format

    @torch.no_grad()
    def answer(batch: Tensor) -> Tensor:
        if should_stop():
            raise EvaluationStopped
        with (
            guarded(f"the network fails on {counted(len(batch), 'image')}", model=model),
            explaining_memory(device, "in evaluation", "--device cpu"),
            autocast(device, precision),
        ):
            inputs = batch.to(device)
            if not takes_pixels(model):
                inputs = normalize(inputs, normalization).contiguous(memory_format=layout)
            output = log_probabilities(model, inputs)
            if tta:
                mirrored = log_probabilities(model, inputs.flip(-1))
                output = torch.logaddexp(output, mirrored) - math.log(2)
            return output.cpu()

    try:
        with folded(model):
            if not at_once:  # a new thread would first have to make handles of a GPU's libraries
                with torch_threads(resolve_threads(threads)):
                    return torch.cat([answer(batch) for batch in batches])
            with worker_threads(resolve_threads(threads), len(batches)) as workers:
                return torch.cat([*workers.map(answer, batches)])
    finally:
        set_training(model, was_training)


def answer_images(network: Network, images: Tensor, *, tta: bool = False) -> Tensor:
    """Return float32 log-probabilities (N, classes) on the CPU for uint8 images (N, 3, H, W)."""
    return predict_log_probabilities(
        network.model,
        images,
        network.device,
        network.precision,
        normalization=network.normalization,
        tta=tta,
        threads=network.settings.threads,
    )
