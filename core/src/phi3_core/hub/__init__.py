"""What comes from the Hugging Face hub: its client, repositories at one commit, downloads."""
