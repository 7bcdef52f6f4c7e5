"""What searches a shard, a file for each kind.

engine         the protocol they all keep
kdtree         hyperplane-split tree with backtracking, exact
faiss_factory  anything that FAISS makes from a factory string
"""
