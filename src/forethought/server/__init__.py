"""The defended model as a server: the OpenAI API and two guard contracts in front of one engine.

`app.py` says how its parts fit together.
"""
