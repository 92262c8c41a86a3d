"""What is measured on pixels and done to them without a model."""
