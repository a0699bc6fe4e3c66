"""Imported by the process from which those of `many.py` are forked, so that torch is there."""

from cifar_cnn.analysis.named import network_named
from cifar_cnn.analysis.summary import summarize

# torch imports much of what it needs for this only now
summarize(network_named("baseline", {}).model)
