"""What backends of CPU runtimes share: adapter, engine, conversion in a child, the check against ONNX Runtime."""
