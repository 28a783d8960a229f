"""What survives, in long forms: `make soak`. Plain pytest collects nothing here; `tests/e2e` has short forms."""
