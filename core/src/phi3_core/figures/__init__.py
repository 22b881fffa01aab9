"""What was measured on this machine, and which devices failed: kept in the store, read by selection."""
