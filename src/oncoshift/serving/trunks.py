"""The trunks that a model can have, and their parts; torchvision knows how each is built and its ImageNet weights."""

TRUNKS = ("resnet18", "resnet50")
"""ResNets by torchvision's names; another one of torchvision's is another name here."""

PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Parts of each trunk in order; freezing is always from the stem up to one of them."""
