"""The one door for text that comes from outside: UTF-8, JSON, JSON lines, YAML and CSV.

Every reader here has limits of size, depth and type, opens regular files only, and says in one line
of a `ResonateError` which file and line is wrong. A contract test forbids the parsers elsewhere.
"""
