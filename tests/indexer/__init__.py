"""Tests of the indexer's first half: files -> documents -> passages."""
