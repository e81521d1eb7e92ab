"""Networks as data: PyTorch modules and ONNX files become `Model`s."""
