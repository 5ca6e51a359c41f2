"""Images, objectives, the loop and its checks. The codec does not import this package."""
