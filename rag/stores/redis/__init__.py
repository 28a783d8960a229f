"""Stores for several machines: one Redis that they share."""
