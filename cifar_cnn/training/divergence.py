"""What ends a run that diverges, before anything of it is saved."""

import math

from cifar_cnn.errors import RunError
from cifar_cnn.settings import Settings
from cifar_cnn.training.schedule import learning_rate
from cifar_cnn.training.totals import Totals


def refuse_divergence(totals: Totals, settings: Settings, steps_per_epoch: int) -> None:
    """Stop at a step whose loss or gradient was not finite.

    Raises:
        RunError: there was one; it names epoch, step and learning rate.
    """
    if totals.failed_step < 0:
        return
    step = int(totals.failed_step)
    epoch, batch = divmod(step, steps_per_epoch)
    finite = math.isfinite(totals.failed_loss)
    what = "the gradient is not finite" if finite else f"the loss is {totals.failed_loss}"
    lr = learning_rate(settings, step, steps_per_epoch)
    raise RunError(
        f"{what} at epoch {epoch}, step {batch}, learning rate {lr:g}: "
        "nothing was saved over the last good checkpoint; try a lower --lr"
    )
