"""Print the directory of the C header and client, for compiler options."""

from attls.c import DIRECTORY

print(DIRECTORY)
