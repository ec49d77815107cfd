"""The layer types: rows of the table `CAFFE`. Files are discovered, never listed; those whose name starts with an
underscore hold what several layers share.

Importing this package fills the table.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in sorted(info.name for info in iter_modules(__path__) if not info.name.startswith("_")):
    import_module(f"{__name__}.{_module}")
