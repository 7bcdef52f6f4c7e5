"""One trainer, two recipes.

settings       both recipes and whitening
trainer        what a run keeps, and how it goes on
label_recipe   triplets of labelled photos
tuple_recipe   siamese training on mined tuples
losses         triplet and contrastive
group_mining   who meets in a batch of labelled photos
tuple_mining   positives and negatives of tuples
feature_cache  outputs of the frozen layers, on disk
workers        the ranks of a run, and what they share
whitening_fit  whitening learned from a collection's embeddings
"""
