"""Replay: real tensors, real dispatch and combine."""
