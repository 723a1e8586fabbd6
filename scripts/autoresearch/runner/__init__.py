"""The runner: one trial, from a spec file to a result file, with no process left behind."""
