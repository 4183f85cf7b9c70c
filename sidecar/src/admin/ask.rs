//! Asking an admin port something, as `ringside top` and the demo do: one request, one connection, the whole answer, all bounded.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The most bytes of an answer. The largest are metrics of many relays.
const ANSWER_MAX: u64 = 8 << 20;

/// GETs `path` from `address`, which is HOST:PORT; returns status and body. Connecting, and each wait for more, may take as long as
/// `patience`.
///
/// # Errors
/// No connection, or no HTTP.
pub fn get(address: &str, path: &str, patience: Duration) -> io::Result<(u16, String)> {
    let mut failed = io::Error::other("the name has no address");
    let mut stream = None;
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(connected) => {
                stream = Some(connected);
                break;
            }
            Err(error) => failed = error,
        }
    }
    let mut stream = stream.ok_or(failed)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // HTTP/1.0, so that the answer comes whole and the connection ends with it.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| {
        io::Error::other("the answer is no HTTP: is this the admin port of a relay?")
    })
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.split_whitespace();
    let is_http = words.next()?.starts_with("HTTP/");
    let status = words.next()?.parse().ok()?;
    is_http.then(|| (status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nwhy\r\n\r\nmore");
        assert_eq!(answer, Some((503, "why\r\n\r\nmore".to_owned())));
        for nonsense in [
            "",
            "HTTP/1.0 200 OK",
            "SSH-2.0-x 200\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
