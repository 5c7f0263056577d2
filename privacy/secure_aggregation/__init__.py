"""PSA-1: secure aggregation for 3 to 50 institutions that know each other. Nothing here reads or writes files or talks to anybody.

`epoch` agrees on pairwise keys for a study; `institution` and `coordinator` are the two sides of one sum, as frozen states and
functions from one to the next that refuse what is out of order; `masking` hides and opens vectors; `quantisation` makes integers of them.
"""
