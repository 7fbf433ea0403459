"""Where a run took place: the facts without which its figures mean nothing."""

from __future__ import annotations

import datetime
import os
import platform
import ssl
from pathlib import Path


class Disturbance:
    """How busy the whole machine was between making this object and reading it: neighbours make figures noisy."""

    def __init__(self) -> None:
        self.before = self._ticks()

    @staticmethod
    def _ticks() -> list[int]:
        return [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]

    def describe(self) -> str:
        """Shares of all processor time: in use by anybody, and taken away by the hypervisor."""
        spent = [after - before for before, after in zip(self.before, self._ticks(), strict=True)]
        total = sum(spent) or 1
        idle, waiting, steal = spent[3], spent[4], spent[7]
        return f"{1 - (idle + waiting + steal) / total:.0%} of the processors in use, {steal / total:.1%} stolen"


def describe() -> dict[str, str]:
    """Machine, kernel and system libraries, as short texts."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpuinfo.splitlines() if "model name" in line), "unknown")
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{model}, {os.cpu_count()} cores, {platform.machine()}",
        "memory": f"{int(memory.split()[1]) / (1 << 20):.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "generator": f"Python ssl, {ssl.OPENSSL_VERSION}",
        "load": f"{os.getloadavg()[0]:.2f} before the run (best measured on a machine that does nothing else)",
    }


def attls_libraries() -> str:
    """The TLS library inside attls, which is not the system's: pyOpenSSL brings its own."""
    try:
        import OpenSSL
        from OpenSSL import SSL
    except ImportError:
        return "pyOpenSSL is not installed"
    version = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
    return f"pyOpenSSL {OpenSSL.__version__}, {version}"
