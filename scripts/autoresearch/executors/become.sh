#!/bin/sh
# What an engine starts: it becomes the command that it is given, so that signals reach that command itself.
exec "$@"
