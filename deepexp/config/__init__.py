"""From the words of a command line and from YAML to a config: found, composed, and explained where it is wrong."""
