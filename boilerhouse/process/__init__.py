"""How a process of Boilerhouse lives: its identity, its commands, its bounds, its priority."""
