"""The operator set: one file per operator or family, each with all its rows. Files are discovered, never listed;
those whose name starts with an underscore hold what several operators share.

Importing this package fills the tables of `sgs.registry`.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in sorted(info.name for info in iter_modules(__path__) if not info.name.startswith("_")):
    import_module(f"{__name__}.{_module}")
