"""What the operating system says of NPUs."""
