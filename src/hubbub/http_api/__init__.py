"""The HTTP API: other programs, in any language, publish and manage clients. `ConnectionManager.http_api` adds it.

It is the server API of Centrifugo, so its clients for Python, Go, PHP, Ruby and JavaScript work with it.
"""
