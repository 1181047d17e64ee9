"""What symguide uses of other libraries that they do not promise to keep: one file for torch and one for diffusers.

Each is fetched by a function of its own, which raises one sentence with the installed version where it is missing.
docs/versions.md says which versions have all of them.
"""
