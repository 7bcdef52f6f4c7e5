"""An evaluation piece by piece: what one process holds does not grow with the collection.

images    images of a side, their names mapped from disk
slices    some embeddings of a gallery, or a shard of an index, as a task takes them in
ranks     where the positives of a query stand
gallery   all slices or shards together, asked a block of queries at a time
"""
