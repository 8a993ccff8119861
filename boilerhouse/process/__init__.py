"""A Boilerhouse process: its identity, commands, limits and priority."""
