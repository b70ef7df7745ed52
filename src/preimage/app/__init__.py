"""A page to play with inversion (extra ``web``): ``preimage app``.

``question`` turns what a visitor gives into an observation, and that into codes; ``drawing`` turns
those into HTML; neither knows of a page. ``page`` has the widgets.
"""
