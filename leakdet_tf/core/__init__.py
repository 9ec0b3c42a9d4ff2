"""What a pixel, a class and a score mean: NumPy and Pillow only, shared by trainer, evaluator and robot."""
