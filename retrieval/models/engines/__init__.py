"""What runs a network that is not PyTorch's.

manifest  what a network made elsewhere takes and gives
runtime   an ONNX file, checked and opened in onnxruntime
graph     what an ONNX file says of itself, without inputs that are none
frozen    a network that somebody else trained, taken as it is
export    a network trained here as ONNX, checked against PyTorch
exported  that network in onnxruntime, without PyTorch
"""
