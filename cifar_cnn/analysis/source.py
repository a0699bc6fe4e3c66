"""Where in the network's own code something happens."""

import traceback
from types import TracebackType

from cifar_cnn.models.guard import place_of

STARTS = {"run_network", "prove"}
"""Functions of the analysis that run a network: what lies above them is the caller's code."""
UNKNOWN = " (torch's own code)"


def place_at_work() -> str:
    """Return the innermost line at work that is the network's own, as ` (file:line)`."""
    frames = traceback.extract_stack()
    first = max(index for index, frame in enumerate(frames) if frame.name in STARTS)
    network = [frame for frame in frames[first + 1 :] if "torchinfo" not in frame.filename]
    return place_of(network) or UNKNOWN


def place_of_error(error: BaseException) -> str:
    """Return the innermost line of an error that is the network's own, as ` (file:line)`."""
    return place_of(traceback.extract_tb(error.__traceback__)) or UNKNOWN


def is_ours(trace: TracebackType | None) -> bool:
    """Return whether an error is the analysis's own: raised while it noted an operation."""
    return any(frame.name == "note" for frame in traceback.extract_tb(trace))
