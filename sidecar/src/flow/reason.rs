//! Why a flow ended: every end has exactly one reason, and each is a value of a metric's label.

use super::Side;
use crate::backend::Errno;

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Both sides sent all they had and ended.
    Finished,
    /// The client reset the connection.
    ClientReset,
    /// The target reset the connection.
    UpstreamReset,
    /// The client's connection failed otherwise, such as by a timeout of its kernel's.
    ClientError,
    /// The target's connection failed otherwise.
    UpstreamError,
    /// Nobody listens at the target.
    ConnectRefused,
    /// There is no way to the target.
    ConnectUnreachable,
    /// The target did not answer in time.
    ConnectTimeout,
    /// Connecting failed otherwise, such as for lack of ports.
    ConnectFailed,
    /// The target's name has no address at the moment.
    NoAddress,
    /// No file descriptor was left for the connection to the target.
    NoDescriptor,
    /// Nothing moved for longer than `timeouts.idle`.
    IdleTimeout,
    /// One side had ended, and the other did not for longer than `timeouts.halfClose`.
    HalfCloseTimeout,
    /// The process ended, and the flow was not done within `timeouts.drain`.
    DrainLimit,
    /// Ended on purpose, to relieve a worker under pressure.
    Shed,
    /// Its source had `accept.perSource` connections open.
    SourceLimit,
    /// It came to the relay's own port, whose connections have to be redirected to it.
    NotRedirected,
    /// It was redirected here although it came from the address that it was to go to: relaying it would never end.
    RedirectLoop,
    /// The worker's backend had to be built anew.
    BackendLost,
}

impl CloseReason {
    /// Every reason, in the order of [`CloseReason::index`].
    pub const ALL: [CloseReason; 19] = [
        CloseReason::Finished,
        CloseReason::ClientReset,
        CloseReason::UpstreamReset,
        CloseReason::ClientError,
        CloseReason::UpstreamError,
        CloseReason::ConnectRefused,
        CloseReason::ConnectUnreachable,
        CloseReason::ConnectTimeout,
        CloseReason::ConnectFailed,
        CloseReason::NoAddress,
        CloseReason::NoDescriptor,
        CloseReason::IdleTimeout,
        CloseReason::HalfCloseTimeout,
        CloseReason::DrainLimit,
        CloseReason::Shed,
        CloseReason::SourceLimit,
        CloseReason::NotRedirected,
        CloseReason::RedirectLoop,
        CloseReason::BackendLost,
    ];

    /// Its place in [`CloseReason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::ClientReset => "client_reset",
            CloseReason::UpstreamReset => "upstream_reset",
            CloseReason::ClientError => "client_error",
            CloseReason::UpstreamError => "upstream_error",
            CloseReason::ConnectRefused => "connect_refused",
            CloseReason::ConnectUnreachable => "connect_unreachable",
            CloseReason::ConnectTimeout => "connect_timeout",
            CloseReason::ConnectFailed => "connect_failed",
            CloseReason::NoAddress => "no_address",
            CloseReason::NoDescriptor => "no_descriptor",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::HalfCloseTimeout => "half_close_timeout",
            CloseReason::DrainLimit => "drain_limit",
            CloseReason::Shed => "shed",
            CloseReason::SourceLimit => "source_limit",
            CloseReason::NotRedirected => "not_redirected",
            CloseReason::RedirectLoop => "redirect_loop",
            CloseReason::BackendLost => "backend_lost",
        }
    }

    /// Whether the access log's mode `Errors` leaves it out: nothing is wrong, or a line for each would let one source
    /// use up the log.
    pub fn is_ordinary(self) -> bool {
        matches!(
            self,
            CloseReason::Finished | CloseReason::IdleTimeout | CloseReason::SourceLimit
        )
    }

    /// The reason for an error on an established connection.
    pub(super) fn of_connection(side: Side, errno: Errno) -> Self {
        let reset = matches!(errno.0, libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED);
        match (side, reset) {
            (Side::Client, true) => CloseReason::ClientReset,
            (Side::Client, false) => CloseReason::ClientError,
            (Side::Upstream, true) => CloseReason::UpstreamReset,
            (Side::Upstream, false) => CloseReason::UpstreamError,
        }
    }

    /// The reason for an error of connect(2) or socket(2).
    pub fn of_connect(errno: Errno) -> Self {
        match errno.0 {
            // ENOENT: there is no Unix socket at the path.
            libc::ECONNREFUSED | libc::ENOENT => CloseReason::ConnectRefused,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
                CloseReason::ConnectUnreachable
            }
            libc::ETIMEDOUT => CloseReason::ConnectTimeout,
            libc::EMFILE | libc::ENFILE => CloseReason::NoDescriptor,
            _ => CloseReason::ConnectFailed,
        }
    }
}
