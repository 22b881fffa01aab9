"""Graphics adapters and NPUs as reported by Windows."""
