"""DiffBody (2024): restoration in many steps, guided by pose, body attention and words."""
