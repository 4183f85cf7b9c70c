//! The connections that calls go over: one, and a second where a call that is held is overtaken by newer state, for over one connection
//! there is one call at a time.
//!
//! The controller lets go of an overtaken call at once. Then its connection is the spare one, for the next time, and is closed when that
//! does not come soon.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::Bytes;

use super::connection::Connection;
use super::failure::Failure;
use crate::time::Time;

/// How long a spare connection is kept: changes come in groups, such as a wish to leave, the grant, and being away. Longer would cost a
/// controller whose sidecars all change now and then a second connection for most of them.
const SPARE_FOR: Duration = Duration::from_secs(5);

/// A call under way; its connection comes back with the answer.
pub(super) type Asked = Pin<Box<dyn Future<Output = (Connection, Result<Bytes, Failure>)> + Send>>;

/// What is left of calls that were overtaken.
#[derive(Default)]
pub(super) struct Lines {
    overtaken: Option<Asked>,
    spare: Option<(Connection, Time)>,
}

impl Lines {
    /// Another connection than that of the call that is overtaken, if there is one; and the call's own is spare once it is let go.
    pub(super) fn overtake(&mut self, asked: Asked) -> Option<Connection> {
        self.overtaken = Some(asked);
        let (spare, _) = self.spare.take()?;
        (!spare.is_closed()).then_some(spare)
    }

    /// Waits until an overtaken call is let go; for ever, where there is none.
    pub(super) async fn let_go(&mut self, now: impl Fn() -> Time) {
        match &mut self.overtaken {
            // Whatever it was answered, what was asked later counts.
            Some(asked) => {
                let (connection, answer) = asked.await;
                self.overtaken = None;
                let is_whole =
                    !matches!(answer, Err(Failure::Unreachable(_) | Failure::TimedOut(_)));
                self.spare = is_whole.then(|| (connection, now()));
            }
            None => std::future::pending().await,
        }
    }

    /// Closes what has been of no use for long.
    pub(super) fn close_unused(&mut self, now: Time) {
        self.spare
            .take_if(|(_, since)| now.saturating_since(*since) > SPARE_FOR);
    }
}
