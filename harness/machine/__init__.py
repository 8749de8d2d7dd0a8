"""The machine: its CPU, its clocks, its NVIDIA driver, and the description that goes into every record."""
