"""What the product claims, each claim a test. Nothing of the product imports from here."""
