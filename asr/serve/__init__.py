"""A small HTTP and WebSocket service: recordings and microphones in, text out, with a page for people."""
