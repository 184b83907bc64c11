"""The oracle's durable store: tables, migrations and sessions."""
