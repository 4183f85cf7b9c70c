//! A scripted controller's side of a line: calls in frames, and replies as the script has them, also such as no controller sends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ringside_api::sync::frames::{self, CALL_BYTES_MOST, Reply};
use ringside_api::sync::{HOLD_MILLIS, Report};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::watch;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::Shared;
use super::script::{Manner, Script};

/// What is said to a call.
enum Said {
    /// A status, after how many seconds to call again, and a body.
    Whole(u16, u16, Vec<u8>),
    /// A frame longer than any.
    Endless,
    /// A frame a byte at a time.
    Slow,
}

/// Speaks until the line ends. `called` is the number of the call that began it, among all.
pub(super) async fn speak(
    stream: impl AsyncRead + AsyncWrite,
    shared: Arc<Shared>,
    called: usize,
    report: Report,
) {
    let (reader, mut writer) = split(stream);
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(CALL_BYTES_MOST)
        .new_codec();
    let mut calls = FramedRead::new(reader, codec);
    let mut newest = shared.newest.subscribe();
    let (mut number, mut called, mut report) = (0, called, Some(report));
    loop {
        let replied = async {
            let Some(report) = report.clone() else {
                return std::future::pending().await;
            };
            let held = held(report, shared.script.subscribe());
            let said = tokio::time::timeout(Duration::from_millis(HOLD_MILLIS), held).await;
            let nothing = || Said::Whole(200, 0, br#"{"offer":{"Keep":""}}"#.to_vec());
            send(&mut writer, number, said.unwrap_or_else(|_| nothing())).await
        };
        tokio::select! {
            goes_on = replied => {
                report = None;
                if !goes_on {
                    return;
                }
            }
            // Another connection's: one pod calls.
            () = overtaken(&mut newest, called) => {
                send(&mut writer, number, Said::Whole(409, 0, Vec::new())).await;
                return;
            }
            frame = calls.next() => {
                let Some(Ok(frame)) = frame else { return };
                let call: frames::Call = serde_json::from_slice(&frame).expect("a call");
                called = shared.take(format!("Bearer {}", call.token), &call.report);
                number = call.number;
                report = Some(call.report);
            }
        }
    }
}

/// Waits for a call after this one.
async fn overtaken(newest: &mut watch::Receiver<usize>, called: usize) {
    // The sender lives as long as the line.
    drop(newest.wait_for(|newest| *newest > called).await);
}

/// Says whether the line goes on.
async fn send(writer: &mut (impl AsyncWrite + Unpin), number: u32, said: Said) -> bool {
    match said {
        Said::Whole(status, retry_after_seconds, body) => {
            let reply = Reply {
                number,
                status,
                retry_after_seconds,
                body: &body,
            };
            let written = writer.write_all(&reply.encode()).await;
            written.is_ok() && writer.flush().await.is_ok() && status == 200
        }
        Said::Endless => {
            let mut written = writer.write_all(&u32::MAX.to_be_bytes()).await;
            while written.is_ok() {
                written = writer.write_all(&[b' '; 8192]).await;
            }
            false
        }
        Said::Slow => {
            let mut written = writer.write_all(&1000_u32.to_be_bytes()).await;
            while written.is_ok() && writer.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                written = writer.write_all(b" ").await;
            }
            false
        }
    }
}

/// What to say, as soon as the script has it.
async fn held(report: Report, mut script: watch::Receiver<Script>) -> Said {
    loop {
        let now = script.borrow_and_update().clone();
        match &now.manner {
            Manner::Answers => {
                if let Some(answer) = now.answer(&report) {
                    return Said::Whole(200, 0, serde_json::to_vec(&answer).expect("an answer"));
                }
            }
            Manner::Says(status, headers, body) => {
                let after = headers.iter().find(|(name, _)| *name == "retry-after");
                let after = after.and_then(|(_, seconds)| seconds.parse().ok());
                return Said::Whole(*status, after.unwrap_or(0), body.clone().into_bytes());
            }
            Manner::Endless => return Said::Endless,
            Manner::Slow => return Said::Slow,
            Manner::Silent => {}
        }
        if script.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
