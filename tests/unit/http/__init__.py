"""Tests of `rag/http`."""
