"""The counter: one small module per command; parses, calls the library, shows the answer."""
