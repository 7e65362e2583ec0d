"""Names of the trunks, which torchvision builds, and of their parts."""

TRUNKS = ("resnet18", "resnet50")
"""ResNets by torchvision's names; to add another of torchvision's ResNets, add its name."""

PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Parts of each trunk, in order; the parts from the stem up to one of them can be frozen."""
