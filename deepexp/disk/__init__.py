"""Files that survive a crash, and JSON and YAML as plain values."""
