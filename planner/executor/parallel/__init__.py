"""A decoder cut over ranks: tensors, experts, stages, replicas."""
