"""Stores for several machines: one PostgreSQL that their servers share."""
