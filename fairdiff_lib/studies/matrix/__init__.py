"""The downstream matrix: real, generated and mixed training images."""
