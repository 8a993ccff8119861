"""HTML pages, and the terminal's WebSocket."""
