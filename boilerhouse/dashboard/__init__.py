"""Pages that span the apps, health, and the one WebSocket that keeps them live."""
