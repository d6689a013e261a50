"""RMGL: receptive multi-granularity representation for person re-identification, in JAX.

Shape legend, used in every docstring:

====  ==================================================================
B     images in a batch
H W   height and width of an image or map (layout is NHWC everywhere)
C     channels
S     stripes of a path
N     part features of the model (globals and stripes of every branch and path)
D     width of a part feature (256)
P K   persons in a batch, images of each
Q G   queries, gallery images
M     images of a split
E     width of the embedding (N * D)
====  ==================================================================
"""

__version__ = "0.1.0"
