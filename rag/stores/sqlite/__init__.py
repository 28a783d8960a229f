"""Stores for one machine: SQLite files that its worker processes share."""
