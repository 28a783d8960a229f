"""What one would assemble instead of this product, for comparison; its packages are not the product's."""
