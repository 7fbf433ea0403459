"""For C programs: the header `ezbztlsc.h` with IBM's names and values, and the one-file client `attls_ioctl.c`.

cc -I"$(python -m attls.c)" program.c "$(python -m attls.c)/attls_ioctl.c"
"""

from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent
