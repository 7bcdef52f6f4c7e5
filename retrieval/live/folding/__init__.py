"""Changes become a sealed gallery again; what was erased leaves every folder.

holders   which folders of a workspace hold an image
erasure   a deletion, and the receipt for it
plan      which changes are folded into which collection
parts     parts of a collection and of its embeddings, without what was deleted, with what was added
seal      their books and seals
cleaning  folders that hold what was erased, removed
"""
