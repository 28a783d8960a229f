"""What was added to the live build while it is served: small immutable segments beside it, and who is in force."""
