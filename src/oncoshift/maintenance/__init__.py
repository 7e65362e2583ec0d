"""Upkeep of a project: backup and restore, garbage, and checks for the person on duty."""
