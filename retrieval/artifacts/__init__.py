"""What passes between steps: folders, manifests, tables.

folder       a folder on disk or in an object store; files come to lie in it whole
progress     how far long work is
hashing      digests of settings and files, draws by name
manifest     begin, books, seal: the life of a step's folder
published    the collection, model and index that are served
collection   photos of a collection: their tables, a local copy, single JPEGs
embeddings   embeddings by part and by row
index        file names of an index, what its seal says
tuples       training tuples
calibration  what a score means: probability, thresholds at false-accept rates
history      what a bundle tells of its training
"""
