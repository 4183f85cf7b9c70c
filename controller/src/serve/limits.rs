//! The limits of the server: each has a name, a unit, a default and a reason. They are values, and do nothing.

use std::time::Duration;

/// What a server allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once. For one more the one goes on which nothing was asked for longest; where each is being answered, it is
    /// closed at once.
    pub connections_most: usize,
    /// Handshakes under way at once, counted from the client's first byte; further ones wait their turn. So that after a restart
    /// thousands that come at once do not all finish too late, and whoever says nothing keeps nobody waiting.
    pub handshakes_most: usize,
    /// How long a client may be silent at first, and then how long its handshake may take.
    pub handshake: Duration,
    /// How long a new connection may take until its first request.
    pub first_request: Duration,
    /// How long over HTTP/1.1 the head of a request may take, counted from the connection's begin or the answer before.
    pub head: Duration,
    /// How long a connection may be without a request that is being answered.
    pub idle: Duration,
    /// How long calls that are open may go on once the server is to stop.
    pub grace: Duration,
    /// Bytes of a request's head, and of the buffer that each connection over HTTP/1.1 keeps for it. At least 8192.
    pub head_bytes_most: usize,
    /// Headers of a request over HTTP/1.1.
    pub headers_most: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_most: u32,
    /// Bytes that a client may send on a stream, and on a connection, before it is told to go on.
    pub window_bytes: u32,
    /// Bytes of answers that one stream holds for a slow reader.
    pub send_bytes_most: usize,
    /// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to say so.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_most: 12_000,
            handshakes_most: 1_024,
            handshake: Duration::from_secs(5),
            first_request: Duration::from_secs(10),
            head: Duration::from_secs(60),
            idle: Duration::from_secs(120),
            grace: Duration::from_secs(5),
            head_bytes_most: 8 << 10,
            headers_most: 64,
            streams_most: 8,
            window_bytes: 64 << 10,
            send_bytes_most: 64 << 10,
            ping: Duration::from_secs(45),
        }
    }
}
