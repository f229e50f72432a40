"""The only SQL: a database, one file per noun (tables, then their queries), and the change feed between processes."""
