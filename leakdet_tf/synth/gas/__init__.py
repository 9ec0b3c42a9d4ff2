"""Gas leaks in a plant, seen by a gas-imaging or a colour camera: the generator ``gas``."""
