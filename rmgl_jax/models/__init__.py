"""The network: backbone, receptive partition, stripe pooling, heads."""
