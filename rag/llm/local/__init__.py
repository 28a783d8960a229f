"""A model of meaning inside the server's own process, for owners without an embedding service."""
