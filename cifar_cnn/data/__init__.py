"""Images: their sources, splits and augmentation."""
