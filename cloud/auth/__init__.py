"""Who may do what: bearer tokens for programs, a signed session cookie for browsers, one table of roles per route.

Tokens are configured by digest. `guard` is the only door: a route it does not know is closed to everybody without the
operator's role, so forgetting a rule closes rather than opens.
"""
