"""What the owner reads: figures for Prometheus, and the page about questions, gaps and costs."""
