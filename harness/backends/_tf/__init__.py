"""ONNX graphs as TensorFlow functions: what the LiteRT converter and the TensorFlow backend start from."""
