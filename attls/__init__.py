"""AT-TLS for Linux: transparent, policy-driven TLS for programs that know nothing about TLS."""

__version__ = "0.1.0"
