"""What the running engines and their devices do: busy figures of the system, and the engines of this store."""
