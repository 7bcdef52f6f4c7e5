"""What is done to a network's embeddings, whatever the network.

adapter  a small map that was trained on embeddings, applied last
"""
