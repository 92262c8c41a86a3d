"""Photos → sharp square crops of people, each with its full record (HQ-ACF)."""
