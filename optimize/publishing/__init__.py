"""Publications: finished runs judged again, assembled, proven where they come from, put somewhere, and fetched back.

`publication` says what one consists of, `destinations` where it may go, `publish` how it gets there, and `fetching` how
it comes back: whatever reads a publication gets it from there.
"""
