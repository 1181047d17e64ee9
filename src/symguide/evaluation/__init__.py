"""How well samples of the scenes world meet what was asked, by judges that guidance never sees."""
