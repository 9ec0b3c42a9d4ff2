"""What changes weights: objectives, the loop and its callbacks."""
