"""What is computed about tickets after training: matching of channels."""
