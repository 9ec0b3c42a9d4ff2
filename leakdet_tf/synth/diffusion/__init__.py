"""Pictures painted by a diffusion model: prompts, places to paint, and the folder that is filled."""
