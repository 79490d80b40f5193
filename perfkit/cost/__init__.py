"""Prices in seconds: of schedules (features and models) and of transfers between ranks."""
