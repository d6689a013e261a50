"""DukeMTMC-reID (Zheng et al., ICCV 2017): 1,404 identities, eight cameras. Withdrawn in 2019."""
