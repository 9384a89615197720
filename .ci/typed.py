"""Whether every public name has a type, from pyright's report on standard input.

Adapters are left out: what they subclass has none that pyright counts.
"""

import json
import sys

symbols = json.load(sys.stdin)["typeCompleteness"]["symbols"]
public = [s for s in symbols if s["isExported"] and not s["name"].startswith("gaussjax.adapters.")]
unknown = [s["name"] for s in public if not s["isTypeKnown"]]
print(f"{len(public) - len(unknown)} of {len(public)} public names have a type", *unknown, sep="\n")
sys.exit(bool(unknown or not public))
