"""A volume that never changes: its inode table, and what each request about it is answered."""
