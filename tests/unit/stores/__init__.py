"""Tests of `rag/stores`."""
