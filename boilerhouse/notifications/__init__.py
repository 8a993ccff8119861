"""Notifications: tell people and programs of the present causes, once when they begin and once when they are resolved.

``incidents`` decides what is told, ``courier`` sends it, ``targets`` are where it goes (ADR 70).
"""
