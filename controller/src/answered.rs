//! Requests to the API server, bounded in time: its client waits for an answer for ever, and whoever waits with it does nothing else.
//!
//! It owns how long a request may take. Watches, which are open for long by nature, and the lease, which has less time, are not its.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

/// The most that one request may take: longer than an API server with much to do needs, webhooks that it asks included.
const PATIENCE: Duration = Duration::from_secs(30);

/// No answer came in time. What was asked for may have been done all the same.
#[derive(Debug, Error)]
#[error("the API server did not answer within {} s", .0.as_secs_f32())]
struct Unanswered(Duration);

/// The answer to `request`.
///
/// # Errors
/// The request failed, or took too long.
pub(crate) async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    within(PATIENCE, request).await
}

async fn within<T>(
    patience: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    match timeout(patience, request).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(Box::new(Unanswered(patience)))),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn what_is_never_answered_has_failed() {
        let unanswered = within(Duration::from_millis(500), pending::<kube::Result<()>>());
        let error = unanswered.await.unwrap_err().to_string();
        assert!(
            error.ends_with("the API server did not answer within 0.5 s"),
            "{error}"
        );
        assert!(Unanswered(PATIENCE).to_string().ends_with("within 30 s"));
    }

    #[tokio::test]
    async fn an_answer_is_passed_on_as_it_is() {
        assert_eq!(answered(ready(Ok(7))).await.unwrap(), 7);
        let failed = answered(ready(Err::<(), _>(
            kube::Error::LinesCodecMaxLineLengthExceeded,
        )));
        assert!(matches!(
            failed.await,
            Err(kube::Error::LinesCodecMaxLineLengthExceeded)
        ));
    }
}
