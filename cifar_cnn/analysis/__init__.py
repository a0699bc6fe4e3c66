"""What can be said of a network without training it: receptive field, summary, budget."""
