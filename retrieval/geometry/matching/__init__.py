"""Which points of two photos are the same.

matches    nearest descriptors, and Lowe's test of them
two_views  those that one two-view geometry explains: for reconstruction
planes     those that one plane explains: what puts search results in order
"""
