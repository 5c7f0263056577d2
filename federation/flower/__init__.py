"""Everything of Flower's internals that this project uses, in one place; the rest of the code keeps to Flower's public packages.

`version` refuses another Flower than the one that this was written against, and tests hold each name, default and route that is used
here, so that an upgrade fails loudly and in one place.
"""
