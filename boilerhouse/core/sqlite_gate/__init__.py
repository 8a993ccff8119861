"""Django's SQLite backend with a fair gate before each write transaction (see ``base``)."""
