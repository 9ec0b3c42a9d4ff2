"""Oil and water leaks on floors, walls and pipes: the generator ``leak``."""
