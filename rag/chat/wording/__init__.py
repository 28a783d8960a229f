"""What the server itself says to a visitor, and in which language. Knows no request."""
