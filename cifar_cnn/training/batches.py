"""The batches of a run: which images, augmented and mixed how, as functions of the seed alone."""

import torch
from torch import Tensor

from cifar_cnn.data.augment import Draws, Mix, Purpose, apply, draw, draw_mix, generator, mix_images
from cifar_cnn.data.dataset import REFERENCE, Normalization, Split
from cifar_cnn.settings import Settings

WHOLE = slice(None)


class TrainingBatches:
    """Makes the input of a training step from images that lie on the device.

    Draws are for the whole batch, so an image is augmented and mixed alike in any part of it. The
    rest after the last whole batch is a batch too, unless it is a single image, of which batch
    normalization would have one value a channel: that is left out.
    """

    def __init__(
        self,
        settings: Settings,
        train: Split,
        device: torch.device,
        normalization: Normalization = REFERENCE,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.settings = settings
        self.layout = layout
        self.normalization = normalization
        self.device = device
        self.images = train.images.to(device)
        self.labels = train.labels.to(device)
        self.files = train.files
        self.count = len(train)
        whole, rest = divmod(self.count, settings.batch_size)
        self.per_epoch = whole + (rest > 1 or whole == 0)
        self._cache: tuple[int, Tensor, Draws] | None = None

    def size(self, index: int) -> int:
        """Return how many images the batch of that index within an epoch has."""
        start = index * self.settings.batch_size
        return min(self.settings.batch_size, self.count - start)

    def at(self, epoch: int, index: int, part: slice = WHOLE) -> tuple[Tensor, Tensor, Mix | None]:
        """Return a batch: float32 images (N, 3, H, W), labels, and how images were mixed.

        Only those of the `part`; where they are mixed, their partners' labels follow their own.
        """
        settings, labels = self.settings, self.labels[self._indices(epoch, index)]
        if not settings.mixup:
            return self.augmented(epoch, index, part), labels[part], None
        source = generator(settings.seed, Purpose.MIXUP, epoch, index)
        mix = draw_mix(settings, epoch, len(labels), source).to(self.device)
        images = mix_images(self.augmented(epoch, index), mix)
        images = images[part].contiguous(memory_format=self.layout)
        partners = torch.arange(len(images), 2 * len(images), device=self.device)
        labels = torch.cat([labels[part], labels[mix.partner[part]]])
        return images, labels, Mix(partners, mix.fraction[part])

    def augmented(self, epoch: int, index: int, part: slice = WHOLE) -> Tensor:
        """Return the images of a batch, or part of one, as `at` does, but not mixed."""
        indices, start = self._indices(epoch, index), index * self.settings.batch_size
        first, stop, _ = part.indices(len(indices))
        draws = self._draws(epoch)[1].of(slice(start + first, start + stop))
        images = self.images.index_select(0, indices[part])
        images = apply(images, draws, self.settings.cutout_size, self.normalization)
        return images.contiguous(memory_format=self.layout)

    def names(self, epoch: int, index: int) -> list[str]:
        """Return the training images of a batch by index and file."""
        indices = self._indices(epoch, index).tolist()
        return [f"{each} ({self.files[each]})" if self.files else str(each) for each in indices]

    def free(self) -> None:
        """Free the images; no batch can be made afterwards."""
        self.images, self.labels, self._cache = self.images[:0].clone(), self.labels[:0], None

    def _indices(self, epoch: int, index: int) -> Tensor:
        """Return which training images the batch has, int64."""
        size = self.settings.batch_size
        return self._draws(epoch)[0][index * size : (index + 1) * size]

    def _draws(self, epoch: int) -> tuple[Tensor, Draws]:
        """Return the order of all images in the epoch, and the draws for them in that order.

        Threads that ask first at once draw the same.
        """
        cached = self._cache
        if cached is None or cached[0] != epoch:
            seed = self.settings.seed
            order = torch.randperm(self.count, generator=generator(seed, Purpose.ORDER, epoch))
            draws = draw(self.settings, self.count, generator(seed, Purpose.AUGMENTATION, epoch))
            cached = self._cache = epoch, order.to(self.device), draws.to(self.device)
        return cached[1:]
