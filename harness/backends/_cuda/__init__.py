"""What the CUDA backends share: the device, the ring of buffers, the timer."""
