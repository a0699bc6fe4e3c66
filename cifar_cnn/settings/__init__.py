"""The settings of a run, and how they are resolved."""

from cifar_cnn.settings.fields import FLAGS as FLAGS
from cifar_cnn.settings.fields import SOURCES as SOURCES
from cifar_cnn.settings.fields import Settings as Settings
from cifar_cnn.settings.resolve import check_removed as check_removed
from cifar_cnn.settings.resolve import complete_settings as complete_settings
from cifar_cnn.settings.resolve import merge_settings as merge_settings
from cifar_cnn.settings.resolve import resolve_settings as resolve_settings
from cifar_cnn.settings.resolve import validate as validate
from cifar_cnn.settings.resolve import without_removed as without_removed
from cifar_cnn.settings.values import parse_arguments as parse_arguments
