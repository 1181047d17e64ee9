"""Objectives written as text: `classifier:3 + 0.5*style:picture.png`, read to callables for any samples."""
