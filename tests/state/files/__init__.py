"""State files of every version, kept for the tests of migrations."""
