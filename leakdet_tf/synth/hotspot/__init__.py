"""Solar modules with hot cells and strings, seen by a drone's thermal camera: the generator ``hotspot``."""
