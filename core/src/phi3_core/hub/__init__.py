"""The Hugging Face hub: client, snapshots of repositories, and downloads."""
