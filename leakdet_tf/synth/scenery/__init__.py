"""What the generators share: textures, noise, materials, cameras, truth, and pictures of the user's own."""
