"""One trainer, two recipes.

settings       both recipes and whitening
trainer        epochs, steps, the best of them, and how a run goes on
recipe         what the trainer asks of a recipe
label_recipe   triplets of labelled photos
tuple_recipe   siamese training on mined tuples
losses         triplet and contrastive, by name
group_mining   who meets in a batch of labelled photos
tuple_mining   positives and negatives of tuples
feature_cache  outputs of the frozen layers, on disk
workers        the ranks of a run, and what they share
whitening_fit  whitening learned from a collection's embeddings
"""
