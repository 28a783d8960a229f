"""Tests of `rag/access`."""
