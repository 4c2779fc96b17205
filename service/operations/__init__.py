"""Running kotrain: the stack, backups, retention, checks."""
