"""Trained models: read from run directories, written to and read from model files."""
