"""The stages of HQ-ACF in the paper's order: each makes records of records, and drops none."""
