"""How good an artifact is: its logits over a text, compared with those of the original weights."""
