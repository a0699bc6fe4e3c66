"""How things reach the disk whole: files, sealed archives, checkpoints."""
