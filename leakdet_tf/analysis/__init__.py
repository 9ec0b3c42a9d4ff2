"""Measuring and showing a finished model; nothing here changes weights or formats."""
