"""How fast the devices of this machine are: tasks, measurements, a report, and comparing two."""
