"""The weights of symguide's embedded worlds and the images of the digits, as files beside this one; no code."""
