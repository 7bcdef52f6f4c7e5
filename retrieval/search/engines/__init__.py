"""What searches a shard, a file for each kind of index.

engine         what all kinds keep to, and which there are
kdtree         hyperplane-split tree with backtracking, exact
kdtree_nodes   its nodes: how they split, how the tree is grown
kdtree_file    the tree as a file
faiss_factory  anything that FAISS makes from a factory string
faiss_filling  such an index filled with a shard's vectors, in bounded memory
faiss_selecting  searching such an index among some of its vectors
"""
