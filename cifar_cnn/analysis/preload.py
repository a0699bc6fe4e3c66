"""Imported by the process from which those of `many.py` are forked, so that torch is there."""

from cifar_cnn.analysis.summary import summarize

summarize("baseline")  # torch imports much of what it needs for this only now
