"""What embeds and what answers: calls with retries, and the stand-ins that need no network."""
