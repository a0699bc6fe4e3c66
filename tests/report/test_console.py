import pytest

from cifar_cnn.errors import counted
from cifar_cnn.report.console import file_size


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (12_345, "12 kB"),
        (99_499, "99 kB"),
        (99_500, "0.10 MB"),
        (812_345, "0.81 MB"),
        (1_234_567, "1.23 MB"),
    ],
)
def test_a_file_below_a_kilobyte_is_said_in_bytes(size, said):
    assert file_size(size) == said


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "epoch", "0 epochs"),
        (1, "epoch", "1 epoch"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "process", "3 processes"),
        (2, "batch", "2 batches"),
        (10_000, "test image", "10,000 test images"),
    ],
)
def test_one_of_a_thing_has_no_s(number, noun, said):
    assert counted(number, noun) == said
