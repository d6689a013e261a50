"""Embedding and searching a user's own person crops."""
