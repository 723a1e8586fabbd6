"""The night: coding agents in tmux, watched, started again and kept at work."""
