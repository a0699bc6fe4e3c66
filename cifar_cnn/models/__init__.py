"""The built-in networks, their building blocks, and the user's own networks."""

from cifar_cnn.models.output import check_output as check_output
from cifar_cnn.models.output import log_probabilities as log_probabilities
from cifar_cnn.models.registry import BUILT_IN as BUILT_IN
from cifar_cnn.models.registry import build_model as build_model
from cifar_cnn.models.registry import is_built_in as is_built_in
