"""The network, its bundle, its inference.

settings       what a network is: names and settings
spec           what a bundle says of itself
known_weights  weights that somebody published: table, search, download
backbones      trunks from torchvision, and weights for them; families/ has a file for each other library
trunks         trunks as lists of layers: cut, freeze, blocks
pooling        maps to vectors, one scale or several
network        trunk, pooling, head, whitening as one module
bundle         a network on storage, and networks built from one
whitening      whitening from sums, and heads that start as it
folding        BatchNorm inside the convolution before it
embedder       JPEGs to embeddings, as fast as the device goes; engines/ has a file for what each network runs in,
               queries/ describes and compares photos that are in no collection, adapters/ has what comes after the
               network, text/ describes words in the space of a network's photos
"""
