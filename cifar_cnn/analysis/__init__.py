"""Analyze a network without training it: receptive field, summary, budget."""
