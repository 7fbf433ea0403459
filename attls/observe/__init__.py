"""The ledger of connections and what operators see of it: records, messages, displays and counters.

A quiet room: it touches no network, reads no clock it was not given and imports the standard library only. The door is
`Ledger` (opens one `Record` per connection), the `display` functions (snapshots to text) and `metrics`.
"""

from attls.observe.record import HANDSHAKE, NOT_SECURE, SECURE, Ledger, Record

__all__ = ["HANDSHAKE", "NOT_SECURE", "SECURE", "Ledger", "Record"]
