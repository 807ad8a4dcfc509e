"""Training on machines that have JAX and no TensorFlow."""
