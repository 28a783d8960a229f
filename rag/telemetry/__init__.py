"""What happened, told to operators: logs, metrics and traces."""
