"""Images to streams and back: where the model, the channel code and the container meet."""
