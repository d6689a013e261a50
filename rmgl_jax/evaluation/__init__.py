"""Embeddings, ranking metrics, re-ranking and the evaluation protocol."""
