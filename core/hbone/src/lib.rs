//! The in-cluster hop: mTLS and HTTP/2 CONNECT, client and server.
