"""What Windows says of its graphics adapters."""
