"""The process: checks before the start, the gunicorn worker, backups."""
