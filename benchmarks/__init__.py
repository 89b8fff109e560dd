"""Every performance figure that is quoted, as a command that prints it."""
