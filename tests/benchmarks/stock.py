"""The usual training program for comparison, written from the reference README's description.

albumentations image by image, the stock DataLoader without workers, batch 64, fp32, contiguous
memory: what its text and log describe. Needs the extra `bench`.
"""

import albumentations as A
import cv2
import torch
import torch.nn.functional as F
from albumentations.pytorch import ToTensorV2
from torch import nn
from torch.utils.data import DataLoader

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PLAIN = [A.Normalize(mean=MEAN, std=STD), ToTensorV2()]
AUGMENTED = [
    A.HorizontalFlip(p=0.5),
    A.ShiftScaleRotate(
        shift_limit=0.1, scale_limit=0.1, rotate_limit=15, border_mode=cv2.BORDER_REFLECT_101, p=0.5
    ),
    A.CoarseDropout(
        num_holes_range=(1, 1),
        hole_height_range=(16, 16),
        hole_width_range=(16, 16),
        fill=tuple(255 * value for value in MEAN),
        p=0.5,
    ),
    *PLAIN,
]


class Images:
    """The images of a split of the library, each transformed when it is asked for."""

    def __init__(self, split, transforms):
        self.images = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.transform = split.labels.tolist(), A.Compose(transforms)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(image=self.images[index])["image"], self.labels[index]


def loaders(train, test):
    """Return the training and the test DataLoader for two splits of the library."""
    train_loader = DataLoader(Images(train, AUGMENTED), batch_size=64, shuffle=True)
    return train_loader, DataLoader(Images(test, PLAIN), batch_size=64)


def new_training():
    """Return the reference network, as its README's table lists it, and its optimizer."""

    def rest(channels):
        return nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.02)

    model = nn.Sequential(
        *(nn.Conv2d(3, 24, 3, padding=1, bias=False), *rest(24)),
        nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24),
        *(nn.Conv2d(24, 48, 1), *rest(48)),
        *(nn.Conv2d(48, 64, 3, padding=2, dilation=2), *rest(64)),
        *(nn.Conv2d(64, 96, 3, stride=2, padding=1), *rest(96)),
        *(nn.Conv2d(96, 128, 3, stride=2, padding=1), *rest(128)),
        *(nn.AdaptiveAvgPool2d(1), nn.Conv2d(128, 10, 1), nn.Flatten(), nn.LogSoftmax(dim=1)),
    )
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def train_epoch(model, loader, optimizer):
    """Train one epoch, and keep what the reference's log line shows."""
    model.train()
    correct = 0
    for images, labels in loader:
        optimizer.zero_grad()
        output = model(images)
        loss = F.nll_loss(output, labels)
        loss.backward()
        optimizer.step()
        correct += output.argmax(dim=1).eq(labels).sum().item()
    return loss.item(), correct


@torch.no_grad()
def evaluate(model, loader):
    """Return mean loss and correct answers, as the reference's test line."""
    model.eval()
    loss = correct = 0
    for images, labels in loader:
        output = model(images)
        loss += F.nll_loss(output, labels, reduction="sum").item()
        correct += output.argmax(dim=1).eq(labels).sum().item()
    return loss / len(loader.dataset), correct
