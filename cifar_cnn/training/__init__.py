"""Train a network: loop, optimizers, schedules and run directories."""
