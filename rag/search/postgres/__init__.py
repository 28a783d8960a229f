"""Builds in PostgreSQL with pgvector: a schema each, searched where they are."""
