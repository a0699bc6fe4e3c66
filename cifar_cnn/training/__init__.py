"""How a network learns: loop, optimizers and schedules, checkpoints."""
