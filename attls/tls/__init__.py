"""TLS without I/O: environments built from settings and key rings, engines over memory buffers, reasons for failures.

`Environment` is the door. The exceptions that an engine raises are re-exported so that the relay needs no TLS library.
"""

from OpenSSL.SSL import Connection as Engine
from OpenSSL.SSL import Error as EngineError
from OpenSSL.SSL import SysCallError, WantReadError, ZeroReturnError

from attls.tls.ciphers import identify
from attls.tls.crossing import RECORD, best
from attls.tls.environment import Environment
from attls.tls.flights import best as best_flights
from attls.tls.hello import APPLICATION_DATA, looks_like_tls, resumes
from attls.tls.inquiry import Inquiry, Question, Reply
from attls.tls.stapling import Staples
from attls.tls.verification import RefusedError

__all__ = [
    "APPLICATION_DATA",
    "RECORD",
    "Engine",
    "EngineError",
    "Environment",
    "Inquiry",
    "Question",
    "RefusedError",
    "Reply",
    "Staples",
    "SysCallError",
    "WantReadError",
    "ZeroReturnError",
    "best",
    "best_flights",
    "identify",
    "looks_like_tls",
    "resumes",
]
