"""The library: from photographs to ranked answers, without a cluster.

    artifacts   what passes between steps: folders, manifests, tables
    images      pixels: decode, find a face, prepare, augment, batch
    data        from a source of photographs to a collection
    models      the network, its bundle, its inference
    geometry    local features, reconstruction, training tuples
    search      indexes, query expansion, re-ranking
    evaluation  who asks whom, and the figures of a system or a benchmark
    training    one trainer, two recipes
    reports     tables, charts, sheets, pages

Which room may import which: tests/test_layering.py.
"""

import os

# oneDNN makes a kernel for each shape that it meets and keeps the last 1,024. A network has a hundred layers and photos
# a hundred shapes: each kernel was forgotten before its shape came again. Read at the first convolution, by torch.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")
