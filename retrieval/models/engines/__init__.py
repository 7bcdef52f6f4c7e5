"""What runs a network that is not PyTorch's.

runtime  an ONNX file, checked and opened in onnxruntime
"""
