"""Folders of pictures and masks, their division, and the batches that training takes from them."""
