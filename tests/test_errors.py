import pytest

from cifar_cnn.errors import did_you_mean, nearest
from cifar_cnn.recipes import RECIPES
from cifar_cnn.settings import Settings


@pytest.mark.parametrize(
    ("word", "choices", "meant"),
    [
        ("COMPACT", ("baseline", "compact"), "compact"),
        ("base", ("baseline", "compact"), "baseline"),
        ("tset", ("train", "val", "test"), "test"),
        ("valid", ("train", "val", "test"), "val"),
        ("wide", ("width", "depth"), "width"),
        ("batch", Settings.model_fields, "batch_size"),
        ("weigth-decay", Settings.model_fields, "weight_decay"),
        ("ref", RECIPES, "reference"),
        ("test", RECIPES, None),
        ("rest", RECIPES, None),
        ("impact", ("baseline", "compact"), None),
        ("image_size", Settings.model_fields, None),
        ("split", ("plot", "flip"), None),
        ("", ("a", ""), None),
        ("x", (), None),
    ],
)
def test_only_words_that_are_alike_are_suggested(word, choices, meant):
    assert nearest(word, choices) == meant
    assert did_you_mean(word, choices) == (f" (did you mean {meant!r}?)" if meant else "")
