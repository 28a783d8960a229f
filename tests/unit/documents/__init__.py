"""Uploads on disk."""
