"""What survives, in long forms: `make soak`. Plain pytest does not collect the files here; `tests/e2e` runs short forms."""
