"""Where a model looked: heat maps, and the pointing game that scores them."""
