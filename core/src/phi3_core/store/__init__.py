"""What lies on this disk: the models that this machine has, each visible only when it is whole."""
