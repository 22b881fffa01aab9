"""NPUs as reported by the operating system."""
