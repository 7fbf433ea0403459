"""Keys, certificates and rings: `Store(directory).ring(reference)` gives the `Keyring` that a policy names."""

from attls.keyring.mapping import Answer, UserMap, Way
from attls.keyring.opening import Store
from attls.keyring.values import Entry, Identity, Keyring, Trust, Usage

__all__ = ["Answer", "Entry", "Identity", "Keyring", "Store", "Trust", "Usage", "UserMap", "Way"]
