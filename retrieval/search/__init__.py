"""Indexes, query expansion, re-ranking.

settings   what index, what expansion
ranking    scores and ties that do not depend on how they were computed
index      an index of shards, built apart and searched as one; engines/ has a file for each kind
blocks     the vectors of a shard, some at a time
shards     from embeddings to the files of an index
budget     which kind of index keeps a promise of recall, memory, time
promise    the same of an index on storage: chosen on a sample, tuned and judged on its shards
vectors    the gallery's own vectors, by row
expansion  queries expanded by their neighbours
rerank     first results in order of geometry
agreement  how far two versions agree on the same queries
"""
