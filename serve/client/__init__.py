"""A typed client of the query service, for programs that wait and for those that do not. No PyTorch, no Ray.

calls       every operation: its address, what goes out, what comes back
photos      what is taken for a photo
failures    what a refusal is here
patience    when a request is sent again, and when no more
blocking    Client
concurrent  AsyncClient
"""

from serve.client.blocking import Client
from serve.client.concurrent import AsyncClient
from serve.client.failures import ApiError

__all__ = ["ApiError", "AsyncClient", "Client"]
