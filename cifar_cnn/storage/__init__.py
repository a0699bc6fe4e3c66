"""Read and write files: atomic writes, archives with digests, checkpoints."""
