//! An echo server as tokio-uring's own documentation writes one, to show what the runtime does without Ringside's care.
//!
//! `plain-tokio-uring`: listens at a port of 127.0.0.1 that the kernel chooses, prints its address on a line, and sends
//! back what comes until it is killed.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

const BUFFER_BYTES: usize = 4096;

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (read, filled) = stream.read(buffer).await;
        let bytes = read?;
        if bytes == 0 {
            return Ok(());
        }
        let (written, sent) = stream.write_all(filled.slice(..bytes)).await;
        written?;
        buffer = sent.into_inner();
    }
}

fn main() -> io::Result<()> {
    tokio_uring::start(async {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        println!("{}", listener.local_addr()?);
        io::stdout().flush()?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio_uring::spawn(echo(stream));
        }
    })
}
