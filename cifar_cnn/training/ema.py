"""A moving average of a network's weights, which generalizes better than the weights it averages.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992); in the
exponential form of Szegedy et al., "Rethinking the Inception Architecture" (2016), section 8.
"""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cifar_cnn.models.module import copy_network, parameters_of, weights_of


class WeightAverage:
    """Keeps a network whose parameters and buffers are moving averages of another's."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy_network(model)
        for parameter in parameters_of(self.model):
            parameter.requires_grad = False

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 0; integers are taken as they are.

        The decay is (1 + step) / (10 + step) as long as that is less, so that the first weights,
        which are noise, do not outlast a short run (as TensorFlow's ExponentialMovingAverage does
        with `num_updates`).
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        source = weights_of(model)
        for name, average in weights_of(self.model).items():
            if average.is_floating_point():
                averages.append(average)
                values.append(source[name])
            else:
                average.copy_(source[name])
        take_in = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        take_in(averages, values, step)
