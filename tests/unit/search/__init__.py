"""Tests of `rag/search`."""
