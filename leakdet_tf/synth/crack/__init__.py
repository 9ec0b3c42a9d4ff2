"""Cracks in concrete, asphalt and painted walls: the generator ``crack``."""
