"""The evaluation after an epoch, shared out among a run's processes."""

from collections.abc import Callable

import torch
from torch import nn

from cifar_cnn.data.dataset import Split
from cifar_cnn.inference.evaluate import judge
from cifar_cnn.inference.forward import predict_log_probabilities
from cifar_cnn.inference.metrics import Evaluation
from cifar_cnn.training.distributed import Processes


def evaluate_together(
    processes: Processes,
    model: nn.Module,
    data: Split,
    device: torch.device,
    precision: str,
    threads: int,
    should_stop: Callable[[], bool],
) -> Evaluation:
    """Evaluate a network on a split, each image in one process; all get the same result.

    Raises:
        EvaluationStopped: `should_stop` said so; of several processes none is asked, as all of
            them have to come to the end.
        RunError: the answers are not finite, or there is no memory for them.
    """
    processes.agree(model)
    count = len(data)
    answers = predict_log_probabilities(
        model,
        data.images[processes.share(count).images],
        device,
        precision,
        threads=threads,
        should_stop=should_stop if processes.size == 1 else lambda: False,
    )
    return judge(processes.gather(answers, count), data.labels)
