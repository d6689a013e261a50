"""CUHK03 under its new protocol (Zhong et al., CVPR 2017): 1,467 identities, two views."""
