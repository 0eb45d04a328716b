"""Queries: nothing here changes a session."""
