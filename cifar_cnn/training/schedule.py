"""The learning rate of every step, a function of the settings alone; `SCHEDULES` has each."""

import math
from collections.abc import Callable

from cifar_cnn.errors import counted
from cifar_cnn.settings import Settings

WARM_UP = 0.25
"""Fraction of a one-cycle run in which the learning rate rises."""


def learning_rate(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run."""
    return SCHEDULES[settings.scheduler](settings, step, steps_per_epoch)


def describe_new_length(old: Settings, new: Settings, step: int, steps_per_epoch: int) -> str:
    """Say what a resumed run's other number of epochs does to the learning rate at `step`."""
    become = "becomes" if old.epochs == 1 else "become"
    change = f"{counted(old.epochs, 'epoch')} {become} {new.epochs:,}"
    if new.scheduler in {"constant", "step"}:
        return f"{change}: the {new.scheduler} learning rate goes on as it was"
    last = learning_rate(old, min(step, old.epochs * steps_per_epoch - 1), steps_per_epoch)
    following = learning_rate(new, min(step, new.epochs * steps_per_epoch - 1), steps_per_epoch)
    return (
        f"{change}: the {new.scheduler} learning rate is laid over all {new.epochs} anew and goes "
        f"on at {following:.3g}, where the old one was at {last:.3g}"
    )


def _constant(settings: Settings, _step: int, _steps_per_epoch: int) -> float:
    """`lr`."""
    return settings.lr


def _step(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """`lr` times `gamma` for every `step_size` epochs gone by."""
    drops = step // steps_per_epoch // settings.step_size
    return math.prod([settings.gamma] * drops, start=settings.lr)


def _cosine(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """From `lr` to `lr` times `lr_floor` along half a cosine, after a warm-up.

    Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts; times a straight line from
    0 to 1 over the first `warmup_epochs` (Goyal et al., "Accurate, Large Minibatch SGD", 2017,
    section 2.2).
    """
    falling = (1 + math.cos(math.pi * _progress(settings, step, steps_per_epoch))) / 2
    rate = settings.lr * (settings.lr_floor + (1 - settings.lr_floor) * falling)
    warm_up = settings.warmup_epochs * steps_per_epoch
    return rate * (step + 0.5) / warm_up if step + 0.5 < warm_up else rate


def _onecycle(settings: Settings, step: int, steps_per_epoch: int) -> float:
    """Up to `lr` in a straight line over the first quarter and down to 0 over the rest.

    Smith and Topin, "Super-Convergence" (2018), section 3.
    """
    progress = _progress(settings, step, steps_per_epoch)
    return settings.lr * min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))


def _progress(settings: Settings, step: int, steps_per_epoch: int) -> float:
    return (step + 0.5) / (settings.epochs * steps_per_epoch)


SCHEDULES: dict[str, Callable[[Settings, int, int], float]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "onecycle": _onecycle,
}
