//! A sidecar's line: a connection after its first call, with calls up and replies down in frames.
//!
//! It owns the order of them: a call that comes while one is held takes its place, and after a refusal the line ends. A call whose sidecar has gone
//! before it was judged is none: it would take the place of one on the sidecar's next line. It judges no call.

use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::StreamExt;
use ringside_api::sync::frames::{CALL_BYTES_MOST, Call, Reply};
use ringside_api::sync::{Answer, Refusal};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::held::Held;
use super::refusal::{RETRY_AFTER_SECONDS, Refused};
use super::{Sync, admit, told};
use crate::serve::{Activity, OpenCall};

/// A call that is held, and what keeps the connection from being taken for idle.
struct Open {
    number: u32,
    held: Held,
    _is_asked: OpenCall,
}

/// Speaks on the line until it ends; `first` is the call that was its request.
pub(super) async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    sync: Arc<Sync>,
    first: Held,
    stream: S,
    activity: Activity,
) {
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(CALL_BYTES_MOST)
        .new_codec();
    // It grows as far as a call is long.
    let mut frames = FramedRead::with_capacity(stream, codec, 0);
    let mut open = Some(Open {
        number: 0,
        held: first,
        _is_asked: activity.begin(),
    });
    // What came while the call before it was judged.
    let mut next = None;
    loop {
        let frame = match next.take() {
            Some(frame) => frame,
            None => {
                let answered = async {
                    match &mut open {
                        Some(open) => (open.number, open.held.answer().await),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    (number, answer) = answered => {
                        open = None;
                        if !reply(&sync, frames.get_mut(), number, answer).await {
                            return;
                        }
                        continue;
                    }
                    // Gone, or sending more than may be: nobody is there to tell.
                    frame = frames.next() => match frame {
                        Some(Ok(frame)) => frame,
                        Some(Err(_)) | None => return,
                    },
                }
            }
        };
        let is_asked = activity.begin();
        // On the heap, and gone when it is taken: its state would be held for as long as the call is.
        let mut taken = Box::pin(taken(&sync, &frame));
        let judged = tokio::select! {
            judged = &mut taken => judged,
            frame = frames.next() => match frame {
                Some(Ok(frame)) => {
                    // One at a time, so that nobody has the API server asked about many.
                    next = Some(frame);
                    taken.await
                }
                Some(Err(_)) | None => return,
            },
        };
        match judged {
            Ok((number, held)) => {
                open = Some(Open {
                    number,
                    held,
                    _is_asked: is_asked,
                });
            }
            Err((number, refused)) => {
                reply(&sync, frames.get_mut(), number, Err(refused)).await;
                return;
            }
        }
    }
}

/// A call that came as a frame, with its number.
async fn taken(sync: &Arc<Sync>, frame: &[u8]) -> Result<(u32, Held), (u32, Refused)> {
    let call: Call = serde_json::from_slice(frame)
        .map_err(|error| (0, Refused::Malformed(error.to_string())))?;
    let number = call.number;
    match admit(sync, &call.token, call.report).await {
        Ok(held) => Ok((number, held)),
        Err(refused) => Err((number, refused)),
    }
}

/// Sends what came of a call; says whether the line goes on.
async fn reply(
    sync: &Sync,
    stream: &mut (impl AsyncWrite + Unpin),
    number: u32,
    answer: Result<Answer, Refused>,
) -> bool {
    let is_answer = answer.is_ok();
    let frame = match answer {
        Ok(answer) => encode(number, StatusCode::OK, &answer),
        Err(refused) => {
            let refused = told(sync, refused);
            encode(number, refused.status(), &Refusal::from(&refused))
        }
    };
    let written = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    written.await.is_ok() && is_answer
}

fn encode(number: u32, status: StatusCode, body: &impl Serialize) -> Vec<u8> {
    let waits = status == StatusCode::SERVICE_UNAVAILABLE;
    Reply {
        number,
        status: status.as_u16(),
        retry_after_seconds: if waits { RETRY_AFTER_SECONDS } else { 0 },
        body: &serde_json::to_vec(body).unwrap_or_default(),
    }
    .encode()
}
