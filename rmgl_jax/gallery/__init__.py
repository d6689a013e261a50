"""Embeddings of the user's own person crops, and search among them."""
