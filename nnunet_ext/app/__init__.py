"""The page of ``nnunet_ext click``: a server on this machine alone, and one script in the browser."""
