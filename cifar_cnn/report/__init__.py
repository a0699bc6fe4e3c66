"""What people look at: console tables and progress, plots."""
