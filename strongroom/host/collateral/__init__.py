"""What vendors sign about their machines, fetched ahead of time and kept, so that verifying needs no network."""
