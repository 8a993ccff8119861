"""How every process writes its logs, counts and traces."""
