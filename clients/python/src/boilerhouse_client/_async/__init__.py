"""The asynchronous client. ``scripts/python-client.sh`` makes the synchronous one of it, except for ``platform``."""
