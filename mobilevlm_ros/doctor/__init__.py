"""Finds out what this machine can run and what is missing. Each check is a function that returns what it found.

Nothing but the standard library is imported before a check needs it, so that the doctor also works where everything is missing.
"""
