"""A network's answers for many images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cifar_cnn.data.dataset import REFERENCE, Normalization, normalize
from cifar_cnn.errors import counted
from cifar_cnn.models.blocks import folded
from cifar_cnn.models.guard import guarded
from cifar_cnn.models.module import set_training
from cifar_cnn.models.output import log_probabilities
from cifar_cnn.models.registry import in_layout, is_built_in
from cifar_cnn.runtime import (
    autocast,
    explaining_memory,
    resolve_threads,
    torch_threads,
    worker_threads,
)
from cifar_cnn.storage.network import Network

BATCH_SIZE = {"cpu": 125, "cuda": 1000, "mps": 500}
"""On the CPU few enough for the maps to stay in its cache."""


class EvaluationStopped(Exception):  # noqa: N818 - nothing went wrong
    """`should_stop` said so before all images had passed."""


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

    @torch.no_grad()
    def answer(batch: Tensor) -> Tensor:
        if should_stop():
            raise EvaluationStopped
        with (
            guarded(f"the network fails on {counted(len(batch), 'image')}", model=model),
            explaining_memory(device, "in evaluation", "--device cpu"),
            autocast(device, precision),
        ):
            inputs = normalize(batch.to(device), normalization)
            return _answers(model, inputs, tta=tta).cpu()

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


def _answers(model: nn.Module, images: Tensor, *, tta: bool) -> Tensor:
    inputs = in_layout(model, images)
    output = log_probabilities(model, inputs)
    if tta:
        mirrored = log_probabilities(model, inputs.flip(-1))
        output = torch.logaddexp(output, mirrored) - torch.log(torch.tensor(2.0))
    return output
