"""Imported by the process from which those of `isolation.py` are forked, so that torch is ready."""

import torch

from cifar_cnn.analysis.summary import summarize

THREADS = torch.get_num_threads()
"""Threads that torch has before."""

torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
summarize("baseline")  # torch imports much of what it needs only now
