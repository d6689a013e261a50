"""A synthetic pedestrian benchmark, rendered in the layout of Market-1501."""
