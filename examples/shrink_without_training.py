"""Only an ONNX file, no training: a quick look at what a smaller network would cost and say.

python examples/shrink_without_training.py MODEL.onnx SMALL.onnx [BUDGET]
"""

import sys

import onnxmorph

source, target, *budget = sys.argv[1:]
analysis = onnxmorph.analyze(source)
print(f"{len(analysis.groups)} channel groups, {analysis.removable:.1%} of the parameters are removable")

small = onnxmorph.shrink(analysis, budget=budget[0] if budget else "flops=70%")
small.save(target)
for cost in ("flops", "params"):
    before, after = (small.structure.costs[when][cost] for when in ("before", "after"))
    print(f"{cost}: {before:,} -> {after:,} ({after / before:.1%})")

# The proof: the small file computes what the original does with the removed channels at zero.
check = onnxmorph.verify(analysis, target, small.structure)
print(f"differs from the zero-masked original by {check.difference:.1e}")
sys.exit(not check.ok)
