"""The coordinator's side of studies whose vectors are added up in secret (PSA-1): it asks, passes on what members signed, and opens sums.

`calls` asks members and sorts their answers; `setup` lets them agree on pairwise keys, once for a study; `sums` makes one sum over any
vectors; `store` keeps a sum that is about to be opened; `rounds` is what the study loop sees of it.
"""
