"""The network, its bundle, its inference.

settings       what a network is: names and settings
known_weights  weights that somebody published: table, search, download
backbones      trunks from torchvision, and weights for them
trunks         trunks as lists of layers: cut, freeze, blocks
pooling        maps to vectors, one scale or several
network        trunk, pooling, head, whitening as one module
bundle         a network on storage, and networks built from one
whitening      whitening from sums, and heads that start as it
number_format  where bfloat16 does no harm
folding        BatchNorm inside the convolution before it
embedder       JPEGs to embeddings, as fast as the device goes; engines/ has what runs a network outside PyTorch,
               queries/ describes and compares photos that are in no collection
"""
