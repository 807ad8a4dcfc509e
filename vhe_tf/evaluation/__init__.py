"""Few-shot accuracy and likelihoods of a trained model."""
