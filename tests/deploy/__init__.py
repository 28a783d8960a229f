"""What operators install and run: images, Compose, systemd, Kubernetes, nginx, scripts, backups."""
