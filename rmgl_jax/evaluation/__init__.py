"""Embeddings, ranking metrics and re-ranking."""
