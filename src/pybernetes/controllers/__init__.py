"""One module per controller; each keeps one promise of the API true."""
