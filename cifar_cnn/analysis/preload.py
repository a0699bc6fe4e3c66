"""Imported by the process from which those of `many.py` are forked, so that torch is there."""

import torch

from cifar_cnn.analysis.summary import summarize

torch.set_num_threads(1)  # threads of OpenMP do not survive a fork, and each process has its core
# torch imports much of what it needs for this only now
summarize("baseline")
