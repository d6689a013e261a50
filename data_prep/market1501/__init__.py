"""Market-1501 (Zheng et al., ICCV 2015): 1,501 identities, six cameras."""
