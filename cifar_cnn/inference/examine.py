"""A closer look at a checkpoint on the test images: what it gets wrong, and how sure it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cifar_cnn.data.dataset import Progress, Split
from cifar_cnn.inference.evaluate import judge
from cifar_cnn.inference.forward import answer_images
from cifar_cnn.inference.metrics import Calibration, Evaluation, calibrate, is_answer
from cifar_cnn.inference.trained import load_images, notes_on
from cifar_cnn.storage.network import Network

MISTAKES = 24


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: its image, uint8 (3, H, W), and the class it took for the true one."""

    file: str
    pixels: NDArray[np.uint8]
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Examination:
    """A network on the test images of its run; `mistakes` are the most confident ones.

    `split` is `val` where a folder of images has that in the place of test images; `notes` say
    where these are not those of the training.
    """

    network: Network
    split: str
    evaluation: Evaluation
    calibration: Calibration
    mistakes: tuple[Mistake, ...]
    notes: tuple[str, ...]


def examine(network: Network, progress: Progress | None = None) -> Examination:
    """Evaluate a checkpoint on the test images, as many as its run was evaluated on."""
    assert network.checkpoint is not None
    limit = network.checkpoint.settings.limit_eval
    data = load_images(network, None, limit, progress)
    output = answer_images(network, data.images)
    answered = is_answer(output)
    return Examination(
        network,
        data.name,
        judge(output, data),
        calibrate(output[answered], data.labels[answered]),
        _worst(data, output),
        notes_on(data, network),
    )


def _worst(data: Split, log_probabilities: Tensor) -> tuple[Mistake, ...]:
    confidence, predicted = log_probabilities.max(dim=1)
    wrong = ((predicted != data.labels) & is_answer(log_probabilities)).nonzero().squeeze(1)
    order = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MISTAKES]
    return tuple(
        Mistake(
            data.files[i],
            data.images[i].numpy(),
            data.classes[int(data.labels[i])],
            data.classes[int(predicted[i])],
            confidence[i].exp().item(),
        )
        for i in order.tolist()
    )
