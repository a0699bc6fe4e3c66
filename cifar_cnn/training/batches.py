"""The batches of a run: which images, augmented and mixed how, as functions of the seed alone."""

import torch
from torch import Tensor, nn

from cifar_cnn.data.augment import Draws, apply, draw
from cifar_cnn.data.dataset import Split, normalize
from cifar_cnn.data.mixup import Mix, draw_mix, mix_images
from cifar_cnn.data.randomness import Purpose, generator
from cifar_cnn.errors import ModelError, one_line
from cifar_cnn.settings import Settings

WHOLE = slice(None)
SHOWN = 1000
"""Training images that a network may see before its first step."""


class TrainingBatches:
    """Makes the input of a training step from images that lie on the device.

    Draws are for the whole batch, so that an image is augmented and mixed alike in whichever share
    of the batch it is computed.

    Args:
        settings: of the run.
        train: the training images.
        device: where they go.
    """

    def __init__(self, settings: Settings, train: Split, device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self.images = train.images.to(device)
        self.labels = train.labels.to(device)
        self._drawn: tuple[int, Draws] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, epoch: int) -> Tensor:
        """Return the order of the epoch's images, int64 (all of them)."""
        source = generator(self.settings.seed, Purpose.ORDER, epoch)
        return torch.randperm(len(self), generator=source).to(self.device)

    def augmented(self, chosen: Tensor, epoch: int, step: int, share: slice = WHOLE) -> Tensor:
        """Return the images of these indices as the step's input, float32 (N, 3, H, W)."""
        done = step * self.settings.batch_size
        first, stop, _ = share.indices(len(chosen))
        draws = self._draws(epoch).of(slice(done + first, done + stop))
        images = self.images.index_select(0, chosen[share])
        images = apply(images, draws, self.settings.cutout_size)
        return images.contiguous(memory_format=torch.channels_last)

    def at(
        self, chosen: Tensor, epoch: int, step: int, share: slice = WHOLE
    ) -> tuple[Tensor, Tensor, Mix | None]:
        """Return the step's images for these indices, their labels, and how images were mixed.

        Only those of the `share`; where they are mixed, their partners' labels follow their own.
        """
        settings, labels = self.settings, self.labels[chosen]
        if not settings.mixup:
            return self.augmented(chosen, epoch, step, share), labels[share], None
        source = generator(settings.seed, Purpose.MIXUP, epoch, step)
        mix = draw_mix(settings, epoch, len(chosen), source).to(self.device)
        images = mix_images(self.augmented(chosen, epoch, step), mix)
        images = images[share].contiguous(memory_format=torch.channels_last)
        if share == WHOLE:
            return images, labels, mix
        partners = torch.arange(len(images), 2 * len(images), device=self.device)
        labels = torch.cat([labels[share], labels[mix.partner[share]]])
        return images, labels, Mix(partners, mix.share[share])

    def _draws(self, epoch: int) -> Draws:
        """Return the draws for all images of the epoch, in its order, on the device."""
        if self._drawn is None or self._drawn[0] != epoch:
            source = generator(self.settings.seed, Purpose.AUGMENTATION, epoch)
            self._drawn = epoch, draw(self.settings, len(self), source).to(self.device)
        return self._drawn[1]


def show_images(model: nn.Module, train: Split) -> None:
    """Show training images to a network that asks for them, before its first step.

    One with a method `see_images` is called with up to `SHOWN` of them, class-balanced, normalized
    float32 (N, 3, H, W). What it makes of them belongs into its state dict.

    Raises:
        ModelError: the method fails.
    """
    see = getattr(model, "see_images", None)
    if see is None:
        return
    try:
        see(normalize(train.limited(SHOWN).images))
    except Exception as error:  # a user's network may raise anything
        raise ModelError(f"the network cannot see_images: {one_line(error)}") from error
