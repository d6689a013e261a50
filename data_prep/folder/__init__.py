"""The user's own images: Market-1501's layout, or one folder for each identity."""
