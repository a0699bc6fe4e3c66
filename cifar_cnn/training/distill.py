"""Distillation: learning from another network's answers besides the labels.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifar_cnn.data.dataset import REFERENCE, Normalization
from cifar_cnn.errors import CheckpointError
from cifar_cnn.inference.trained import StoredNetwork, TrainedNetwork
from cifar_cnn.models.module import parameters_of, set_training
from cifar_cnn.models.output import check_output
from cifar_cnn.models.registry import build_model, is_built_in
from cifar_cnn.settings import Settings
from cifar_cnn.storage.checkpoint import Checkpoint, read_checkpoint, settings_of


def load_teacher(
    teacher: str,
    classes: tuple[str, ...],
    input_size: tuple[int, int],
    normalization: Normalization = REFERENCE,
) -> nn.Module:
    """Return a network to learn from, in evaluation mode, without gradients.

    Args:
        teacher: a checkpoint of a built-in network, or `module:attr` or `path.py:attr` of something
            that returns a network with its trained weights.
        classes: names that a checkpoint must have been trained on, in index order.
        input_size: (H, W) that it must take.
        normalization: of its images; a checkpoint's own takes its place.
    """
    if is_code(teacher):
        model = build_model(teacher)
    else:
        model = _as_trained(_from_file(Path(teacher), classes), normalization)
    check_output(model, input_size, len(classes))
    set_training(model, False)
    for parameter in parameters_of(model):
        parameter.requires_grad = False
    return model


def is_code(teacher: str) -> bool:
    """Say whether a teacher is named as `module:attr` or `path.py:attr`, and not as a file."""
    _, colon, attribute = teacher.rpartition(":")  # C:\model.pt is a file
    names = attribute.split(".")
    return bool(colon) and names[-1] not in {"pt", "pth"} and all(n.isidentifier() for n in names)


def runs_own_code(settings: Settings) -> bool:
    """Say whether a training step runs code of the user's, of which nothing is known."""
    return not is_built_in(settings.model) or is_code(settings.teacher or "")


def _from_file(path: Path, classes: tuple[str, ...]) -> TrainedNetwork:
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Checkpoint):
        raise CheckpointError(
            f"teacher {path} is a bare state dict: name a function that returns the network with "
            "its weights, as module:attr or path.py:attr"
        )
    if not is_built_in(checkpoint.model):
        raise CheckpointError(
            f"teacher {path} is a {checkpoint.model}: name a function that returns it with its "
            "weights, as module:attr or path.py:attr, to let its code run"
        )
    if checkpoint.classes != classes:
        raise CheckpointError(f"teacher {path} was trained on other classes than the data set has")
    settings = settings_of(checkpoint, path, {})
    cpu, weights = torch.device("cpu"), checkpoint.state_dict
    return StoredNetwork(path, settings, cpu, weights, checkpoint).build(classes)


def _as_trained(trained: TrainedNetwork, given: Normalization) -> nn.Module:
    """Return the network, which turns images normalized as `given` into such as it knows."""
    model, own = trained.model, trained.normalization
    if own == given:
        return model
    mean, std, own_mean, own_std = (
        torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (*given, *own)
    )
    model.register_buffer("_scale", (std / own_std).float(), persistent=False)
    model.register_buffer("_offset", ((mean - own_mean) / own_std).float(), persistent=False)
    model.register_forward_pre_hook(
        lambda network, inputs: torch.addcmul(network._offset, inputs[0], network._scale)  # noqa: SLF001
    )
    return model


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher ‖ student) at temperature T, in nats, the mean over the images.

    T² keeps the size of the gradients independent of T.

    Args:
        student: logits or log-probabilities, float32 or float64 (N, classes).
        teacher: the same of the teacher, for the same images, in the same type.
        temperature: what they are divided by, before they are normalized again.
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence
