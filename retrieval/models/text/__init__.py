"""Words described in the space of a network's photos: its text tower, where it has one.

manifest  what the tower takes and gives
tokens    a text to the numbers of its tokens
tower     those to an embedding
"""
