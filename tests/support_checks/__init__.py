"""Checks of the test support itself, so that the other tests can trust what they stand on."""
