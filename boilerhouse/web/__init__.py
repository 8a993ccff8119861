"""The web server: connections, requests, waiting, event streams, refusals."""
