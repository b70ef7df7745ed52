"""A page to play with inversion (extra ``web``): ``preimage app``.

``question`` turns what a visitor gives into an observation, ``answer`` turns that into results,
``drawing`` turns those into HTML; none of them knows of a page. ``page`` has the widgets.
"""
