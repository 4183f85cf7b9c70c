//! The line to the controller: a connection after its first call, with calls up and replies down in frames. A call may overtake the one before it.
//!
//! It owns the connection and the numbers of the calls; a reply to a call that was overtaken is passed over. It judges no answer.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::StreamExt;
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ringside_api::sync::Report;
use ringside_api::sync::frames::{Call, REPLY_HEAD_BYTES, Reply, frame};
use tokio::io::AsyncWriteExt;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::call::{ANSWER_BYTES_MAX, refused};
use super::connection::{Connection, Descriptor};
use super::failure::Failure;

/// The first size of the buffer for replies, which grows as far as a reply is long.
const BUFFER_BYTES: usize = 1024;

/// An upgraded connection.
pub(super) struct Line {
    frames: FramedRead<TokioIo<Upgraded>, LengthDelimitedCodec>,
    peer: SocketAddr,
    /// The last call.
    number: u32,
    _descriptor: Arc<Descriptor>,
}

impl Line {
    /// Makes the connection's first call.
    pub(super) async fn begin(
        connection: Connection,
        request: Request<Body>,
    ) -> Result<Self, Failure> {
        let peer = connection.peer;
        let (upgraded, descriptor) = connection.upgrade(request).await?;
        let codec = LengthDelimitedCodec::builder()
            .max_frame_length(ANSWER_BYTES_MAX + REPLY_HEAD_BYTES)
            .new_codec();
        Ok(Self {
            frames: FramedRead::with_capacity(TokioIo::new(upgraded), codec, BUFFER_BYTES),
            peer,
            number: 0,
            _descriptor: descriptor,
        })
    }

    /// Makes another call, which overtakes the one before where that has no reply yet.
    pub(super) async fn call(&mut self, token: String, report: Report) -> Result<(), Failure> {
        self.number = self.number.wrapping_add(1);
        let call = Call {
            number: self.number,
            token,
            report,
        };
        let call = serde_json::to_vec(&call).map_err(|error| Failure::Failed(error.to_string()))?;
        let stream = self.frames.get_mut();
        let written = async {
            stream.write_all(&frame(&[&call])).await?;
            stream.flush().await
        };
        written.await.map_err(|error| self.broke(&error))
    }

    /// The reply to the last call. Given up half-way, nothing of it is lost.
    pub(super) async fn reply(&mut self) -> Result<Bytes, Failure> {
        loop {
            let frame = match self.frames.next().await {
                Some(Ok(frame)) => frame.freeze(),
                Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(Failure::Failed(format!(
                        "it is longer than {ANSWER_BYTES_MAX} bytes"
                    )));
                }
                Some(Err(error)) => return Err(self.broke(&error)),
                None => return Err(self.broke(&"it was closed")),
            };
            let Some(reply) = Reply::decode(&frame) else {
                return Err(Failure::Failed("it is too short for a reply".to_owned()));
            };
            let is_ok = reply.status == StatusCode::OK.as_u16();
            if !is_ok {
                // Also of a call that was overtaken: the connection ends with it.
                let status = StatusCode::from_u16(reply.status);
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let seconds = u64::from(reply.retry_after_seconds);
                let seconds = Some(seconds).filter(|seconds| *seconds > 0);
                return Err(refused(status, seconds, reply.body));
            }
            if reply.number == self.number {
                return Ok(frame.slice_ref(reply.body));
            }
        }
    }

    fn broke(&self, error: &dyn std::fmt::Display) -> Failure {
        let peer = self.peer;
        Failure::Unreachable(format!("the connection to {peer} broke: {error}"))
    }
}
