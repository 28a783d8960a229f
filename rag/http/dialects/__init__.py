"""The languages of other clients: each module reads what its clients send, and spells the pipeline's events."""
