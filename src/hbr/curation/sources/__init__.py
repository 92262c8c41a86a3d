"""Where photos come from: annotated data sets in their own formats, archives, tables, folders."""
