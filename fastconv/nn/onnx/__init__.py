"""Networks as ONNX files: the form of each layer, and the graph around them."""
