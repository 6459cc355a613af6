"""Providers: steered models for programs that evaluate models. Nobody knows them; they know everything."""
