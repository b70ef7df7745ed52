"""The joint method: all layers of a network at once.

``least_squares`` is what is minimised and its linearisation, ``compiled`` the same in the C kernel
for dense chains, ``model`` the local model and its damped step, ``descent`` the loop that accepts
or rejects steps, ``flips`` the neighbouring linear pieces of an answer, ``search`` the starts and
their order. ``linear_fit`` fits in the l1 and l-infinity norms by linear programs.
"""
