"""What an operator runs, and what monitoring queries: up, doctor, backup, restore, apply, health, metrics."""
