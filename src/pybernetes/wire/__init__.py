"""Protocols on sockets: HTTP/1.1, TLS, WebSocket and SPDY, without a word of Kubernetes."""
