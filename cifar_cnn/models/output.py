"""What a network's output means: one log-probability a class."""

from traceback import extract_stack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cifar_cnn.errors import ModelError, RunError, UserError, counted
from cifar_cnn.models.guard import guarded, place_of
from cifar_cnn.models.module import parameters_of, set_training


def log_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Return float32 log-probabilities (N, classes) for normalized images (N, 3, H, W).

    A network with a true `outputs_log_probabilities` gives them itself; any other gives logits.
    Those of a network that computes in float64 stay float64.
    """
    output = _run(model, images, RunError)
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if getattr(model, "outputs_log_probabilities", False):
        return output
    return F.log_softmax(output, dim=1)


def _run(model: nn.Module, images: Tensor, kind: type[UserError]) -> Tensor:
    """Return the output, with the batch dimension that `squeeze` takes from one image."""
    output = model(images)
    if not isinstance(output, Tensor):
        raise kind(
            f"{'in training ' if model.training else ''}the network returns "
            f"{type(output).__name__}, not one tensor: have forward return the logits alone"
        )
    return output[None] if output.ndim == 1 and len(images) == 1 else output


class _Reshapes(TorchFunctionMode):
    """Records, by batch size, the last call and line that reshaped one image into such a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_reshape = func in {Tensor.view, Tensor.reshape, torch.reshape}
        if is_reshape and args and args[0].shape[:1] == (1,) and result.ndim:
            self.last[len(result)] = f"{func.__name__}{place_of(extract_stack())}"
        return result


@torch.no_grad()
def check_output(
    model: nn.Module, input_size: tuple[int, int], num_classes: int | None, *, remedy: str = ""
) -> Tensor:
    """Return the network's output in evaluation mode for one black image of `input_size`, (H, W).

    Raise a ModelError, which ends with `remedy`, for another number of outputs than `num_classes`;
    None allows any number.
    """
    parameter = next(iter(parameters_of(model)), torch.empty(0))
    was_training, (height, width) = model.training, input_size
    set_training(model, False)
    image = torch.zeros(1, 3, height, width, device=parameter.device)
    try:
        with guarded(f"the network cannot take 3x{height}x{width} images", ModelError, model):
            output = _run(model, image, ModelError)
            answers = len(output) if output.ndim == 2 else 1
            if answers != 1:
                with _Reshapes() as reshapes:
                    model(image)
                raise ModelError(
                    f"the network gives {counted(answers, 'answer')} for one image: "
                    f"{reshapes.last.get(answers, 'a reshape')} takes places for images; keep the "
                    "batch, as x.flatten(1) does"
                )
    finally:
        set_training(model, was_training)
    if num_classes is not None and tuple(output.shape) != (1, num_classes):
        raise ModelError(
            f"the network's output for one image is {tuple(output.shape)}, "
            f"the data set needs (1, {num_classes}){remedy if output.ndim == 2 else ''}"
        )
    return output


def is_probability(output: Tensor) -> bool:
    """Return whether outputs (N, classes) look as after a softmax: none below 0, each sum one."""
    sums = output.float().sum(dim=1)
    return bool((output >= 0).all() and ((sums - 1).abs() < 1e-3).all())
