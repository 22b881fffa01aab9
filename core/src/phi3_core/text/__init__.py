"""Text to ids and back: the chat template, the tokenizer, incremental decoding and stop strings."""
