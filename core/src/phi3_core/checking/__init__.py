"""The check of an engine with known answers, the first time that an artifact runs on a device."""
