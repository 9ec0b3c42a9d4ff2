"""The experiment file: its schema, how it is read, and what is said when it cannot be followed."""
