"""What was uploaded: the originals, what became of each, and the one process that works on them. Knows no index."""
