"""Tests of `rag/ops`."""
