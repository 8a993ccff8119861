"""Django's SQLite backend with a fair lock in front of each write transaction (see ``base``)."""
