"""What each task's models are asked: one module a task."""
