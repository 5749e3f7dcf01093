"""The process, its command line, its files and its machine."""
