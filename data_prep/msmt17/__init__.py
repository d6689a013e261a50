"""MSMT17 (Wei et al., CVPR 2018): 4,101 identities, 15 cameras."""
