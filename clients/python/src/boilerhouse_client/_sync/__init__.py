"""The synchronous client, made from the asynchronous one by ``scripts/python-client.sh``, except for ``platform``."""
