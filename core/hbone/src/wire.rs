//! What both ends of the hop agree on, and the sizes that they run with.
//!
//! Flow-control windows follow what ztunnel found in the field: the connection's window
//! must be larger than a stream's, or one stream that nobody reads stalls all others.
//!
//! Spec: RFC 9113 sections 5.2, 6.5 and 6.9; Istio HBONE.

use std::time::Duration;

/// The port of every sidecar and gateway for traffic inside the mesh.
pub const MESH_PORT: u16 = 15008;

/// ALPN of HBONE: HTTP/2 with CONNECT requests only.
pub const ALPN_CONNECT: &[u8] = b"h2";
/// ALPN of plain HTTP/2 requests, multiplexed for the applications.
pub const ALPN_HTTP: &[u8] = b"isthmus-http/1";

/// Request header that names the cluster of a remote endpoint.
pub const CLUSTER_HEADER: &str = "x-isthmus-cluster";
/// Request header that names a remote endpoint by its opaque id.
pub const ENDPOINT_HEADER: &str = "x-isthmus-endpoint";
/// Response header that says in words why a CONNECT was refused.
pub const REFUSED_REASON_HEADER: &str = "x-isthmus-refused-reason";

/// Bytes that one stream may have in flight towards us.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes that all streams of one connection together may have in flight towards us.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Largest DATA frame that we take. Large frames save work per byte; much larger ones
/// would delay the other streams of a connection.
pub const FRAME_BYTES_MAX: u32 = 256 * 1024;
/// Bytes that one stream may queue locally before its writer has to wait.
pub const SEND_BUFFER_BYTES_MAX: usize = 512 * 1024;
/// Decoded header bytes (name + value + 32 for each field) of one request or response.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Tunnels that a client opens on one connection before it makes another.
pub const CLIENT_STREAMS_MAX: usize = 100;
/// Tunnels that a server takes on one connection at once. Above
/// [`CLIENT_STREAMS_MAX`], so that our own clients never see a stream refused.
pub const SERVER_STREAMS_MAX: u32 = 256;

/// Streams that a peer may open and reset before we have looked at them. Above
/// [`CLIENT_STREAMS_MAX`], because a client may give up everything at once.
pub(crate) const PENDING_RESETS_MAX: usize = 128;
/// Streams that we may have to reset because of a peer's protocol errors.
pub(crate) const LOCAL_RESETS_MAX: usize = 128;
/// Streams that we have reset and for which late frames are still tolerated.
pub(crate) const REMEMBERED_RESETS_MAX: usize = 128;
/// How long late frames of a stream that we have reset are tolerated.
pub(crate) const REMEMBERED_RESET_AGE: Duration = Duration::from_secs(5);

/// Time for one TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Quiet time before a PING.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Time for the answer to a PING before the peer counts as gone.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a refusal's reason that are kept or sent.
pub const REFUSED_REASON_BYTES_MAX: usize = 256;
