"""Invented pictures of leaks with exact truth: renderers, and the folder that a renderer fills."""
