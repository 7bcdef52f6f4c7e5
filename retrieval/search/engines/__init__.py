"""What searches a shard, a file for each kind of index.

engine         what all kinds keep to, and which there are
kdtree         hyperplane-split tree with backtracking, exact
kdtree_nodes   its nodes: how they split, how the tree is grown
faiss_factory  anything that FAISS makes from a factory string
faiss_selecting  searching such an index among some of its vectors
"""
