"""A file for each verb of a campaign; the only place where the other rooms meet."""
