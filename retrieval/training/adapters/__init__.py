"""An adapter for a network's embeddings, trained on these alone.

settings  which candidates, how they are trained, what they must gain
vectors   embeddings of what is trained on and of what is validated, and which of them match
fit       candidates: whitening, a linear map, a small residual one
choice    candidates beside the identity, on people or places that none was trained on
"""
