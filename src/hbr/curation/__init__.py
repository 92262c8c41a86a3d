"""Photos → sharp square crops of people, each with its whole story (HQ-ACF)."""
