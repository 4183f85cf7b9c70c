//! The application of the demo: answers small HTTP requests with bytes that can be checked.
//! It owns a thread and a port of 127.0.0.1 that the kernel chose.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The application, running until the process ends.
pub(super) struct Application {
    pub(super) address: SocketAddr,
}

impl Application {
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        std::thread::Builder::new()
            .name("application".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let Ok(listener) = TcpListener::from_std(listener) else {
                        return;
                    };
                    while let Ok((connection, _)) = listener.accept().await {
                        tokio::spawn(serve(connection));
                    }
                });
            })?;
        Ok(Application { address })
    }
}

/// The body of the answer to request `number`: a length and bytes that follow from the number alone.
pub(super) fn body(number: u64) -> Vec<u8> {
    let length = 64 + number.wrapping_mul(0x9e37_79b9) % 4000;
    (0..length)
        .map(|index| (number.wrapping_mul(31).wrapping_add(index.wrapping_mul(7)) % 251) as u8)
        .collect()
}

/// Answers requests until the client ends or sends what is no request.
async fn serve(connection: TcpStream) -> std::io::Result<()> {
    let (reading, mut writing) = connection.into_split();
    let mut lines = BufReader::new(reading).lines();
    while let Some(request) = lines.next_line().await? {
        let number = request
            .strip_prefix("GET /")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(number) = number else { break };
        while lines
            .next_line()
            .await?
            .is_some_and(|header| !header.is_empty())
        {}
        let body = body(number);
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend(body);
        writing.write_all(&answer).await?;
    }
    Ok(())
}
