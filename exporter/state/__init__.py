"""The ledger's storage: a SQLite file or a PostgreSQL database."""
