"""NumPy client of a served VHE, over REST or gRPC."""

from vhe_tf.serving.client._transport import ServingError
from vhe_tf.serving.client.client import Classification
from vhe_tf.serving.client.client import Client

__all__ = ["Classification", "Client", "ServingError"]
