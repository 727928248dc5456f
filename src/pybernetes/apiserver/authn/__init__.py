"""Who sends a request: client certificates, bearer tokens, identities of this process.

`authenticator` puts the ways together in upstream's order. What none of them understands is
anonymous, and what one understands and finds wrong is 401.
"""
