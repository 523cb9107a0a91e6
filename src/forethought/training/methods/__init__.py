"""Methods of training: one file a method, or a family that shares rows, with rows, objective and description together.

A file's `METHODS` are its methods; the catalogue finds them by looking at every file of this folder, so that a new one
is added by its file alone. It is listed without loading torch: what needs it is imported where it is called.
"""
