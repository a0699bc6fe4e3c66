"""Output for people: console tables, progress, plots and reports."""
