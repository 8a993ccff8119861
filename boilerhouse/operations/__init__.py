"""What an operator runs, and what his tools ask: up, doctor, backup, restore, apply, health, metrics."""
