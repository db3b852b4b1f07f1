"""Training many trials at once as one stacked model. Start reading at `loop.py`.

`copies.py` lays the tensors of K models side by side, `stack.py` makes one step of them,
`program.py` turns that into a straight line of operations, and `proof.py` compares it with trials
on their own.
"""
