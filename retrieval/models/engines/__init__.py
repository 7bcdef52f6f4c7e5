"""What runs a network, and which of it where.

manifest       what a network made elsewhere takes and gives
runtime        an ONNX file, checked and opened in onnxruntime
graph          what an ONNX file says of itself, without inputs that are none
session        a frozen network's file, checked and opened, without PyTorch
frozen         a network that somebody else trained, taken as it is
number_format  where bfloat16 does no harm
eager          a network in PyTorch
export         a network trained here as ONNX, checked against PyTorch
exported       that network in onnxruntime, without PyTorch
kept           exported networks, kept on this machine
choice         which engine runs a network here
"""
