"""Code that the scripts share, one topic in each module; `results` and `fuse` are commands of their own."""
