"""The server of ``phi3 serve``: OpenAI's interface, on FastAPI. Needs the extra ``server``.

A request goes through these modules: ``guard`` (who may ask, and how much), the dialect (``chat``, ``completions``),
which translates it to a :class:`~phi3_core.server.calls.ChatCall`, ``answering``, which alone touches models, and back
through the dialect, event by event.
"""
