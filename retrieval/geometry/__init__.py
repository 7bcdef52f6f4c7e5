"""Local features, reconstruction, training tuples.

settings        how tuples are found
colmap          pycolmap, without the signal handlers that it leaves behind
features        local features of a photo; extractors/ has a file for each way to find them, matching/ for each to match
vocabulary      visual words, and which photos are alike by them
pairing         which pairs of photos are worth a check
extraction      local features of a collection, taken once and kept
stages          what stages leave on storage: features, pairs, links
reconstruction  the stages: features, links, groups, models, tuples
mapping         linked photos to models, by COLMAP
sparse_model    cameras, points, and what is seen together
tuples          tuples from models, labels, or models of others
"""
