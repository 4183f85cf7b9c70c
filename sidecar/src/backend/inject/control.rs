//! Orders from outside the process: lines on a Unix socket, each answered by one line. No unsafe, no decisions.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::errno::shown;
use super::{Errno, Injector};

/// The longest line that is read, in bytes.
const LINE_LIMIT: u64 = 256;

/// One line of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `fail COUNT [ERRNO]`: the next submitting calls fail.
    Fail(u64, Errno),
    /// `fail-for TIME [ERRNO]`: all submitting calls fail for a time.
    FailFor(Duration, Errno),
    /// `stop`: calls go on again.
    Stop,
    /// `counts`: only tell what happened.
    Counts,
}

/// A line that is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The first word is unknown, or words are missing or left over.
    #[error(
        "`{}` is not an order; allowed are `fail COUNT [ERRNO]`, `fail-for TIME [ERRNO]`, `stop` and `counts`",
        shown(.0)
    )]
    Unknown(String),
    /// Not a count.
    #[error("`{}` is not a count of calls; a whole number from 1 on is, such as 20", shown(.0))]
    Count(String),
    /// Not a time.
    #[error("`{}` is not a time; a whole number of `ms`, `s` or `m` is, such as 2s", shown(.0))]
    Time(String),
    /// Not an error that can be injected.
    #[error(transparent)]
    Errno(#[from] super::UnknownErrno),
}

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(line: &str) -> Result<Self, OrderError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let errno = |at: usize| words.get(at).map_or(Ok(Errno::EAGAIN), |word| word.parse());
        match *words.as_slice() {
            ["fail", count] | ["fail", count, _] => match count.parse() {
                Ok(number) if number > 0 => Ok(Self::Fail(number, errno(2)?)),
                _ => Err(OrderError::Count(count.to_owned())),
            },
            ["fail-for", time] | ["fail-for", time, _] => {
                let time = parse_time(time).ok_or_else(|| OrderError::Time(time.to_owned()))?;
                Ok(Self::FailFor(time, errno(2)?))
            }
            ["stop"] => Ok(Self::Stop),
            ["counts"] => Ok(Self::Counts),
            _ => Err(OrderError::Unknown(line.trim().to_owned())),
        }
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

/// The socket that takes orders. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Listens at `path`. A socket file that a killed process left there is replaced.
    ///
    /// # Errors
    /// What the kernel answered, such as that someone listens there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && left_behind(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            other => other?,
        };
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers orders with `injector` on threads of their own, for as long as the process lives.
    ///
    /// # Errors
    /// No thread or descriptor was to be had.
    pub fn serve(&self, injector: &Arc<Injector>) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let injector = Arc::clone(injector);
        thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    let Ok(stream) = stream else { return };
                    let injector = Arc::clone(&injector);
                    let served = thread::Builder::new().spawn(move || {
                        // A client that goes away in the middle of a line has no one to tell.
                        let _ = answer_lines(&stream, |order| obey(&injector, order));
                    });
                    if let Err(error) = served {
                        tracing::warn!(%error, "a control connection got no thread and was closed");
                    }
                }
            })?;
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Somebody may have removed it already, which is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn left_behind(path: &Path) -> bool {
    matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

fn obey(injector: &Injector, order: Order) -> String {
    match order {
        Order::Fail(count, errno) => injector.fail_next(count, errno),
        Order::FailFor(time, errno) => injector.fail_for(time, errno),
        Order::Stop => injector.stop(),
        Order::Counts => {}
    }
    let counts = injector.counts();
    format!(
        "ok seen={} failed={} continued={} waits={}",
        counts.seen, counts.failed, counts.continued, counts.waits
    )
}

fn answer_lines(stream: &UnixStream, mut obey: impl FnMut(Order) -> String) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if (&mut reader)
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n') || (line.len() as u64) < LINE_LIMIT;
        let answer = match String::from_utf8_lossy(&line).parse() {
            Ok(order) => obey(order),
            Err(error) => format!("error {error}"),
        };
        let mut stream = stream;
        stream.write_all(format!("{answer}\n").as_bytes())?;
        if !whole {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        assert_eq!("fail 20 EPERM\n".parse(), Ok(Order::Fail(20, Errno::EPERM)));
        assert_eq!("fail 1".parse(), Ok(Order::Fail(1, Errno::EAGAIN)));
        assert_eq!(
            "fail-for 2s EINTR".parse(),
            Ok(Order::FailFor(Duration::from_secs(2), Errno::EINTR))
        );
        assert_eq!(
            "fail-for 150ms".parse(),
            Ok(Order::FailFor(Duration::from_millis(150), Errno::EAGAIN))
        );
        assert_eq!("  stop ".parse(), Ok(Order::Stop));
        assert_eq!("counts".parse(), Ok(Order::Counts));
    }

    #[test]
    fn whatever_else_gets_a_sentence() {
        for (line, part) in [
            ("", "`` is not an order"),
            ("fail", "`fail` is not an order"),
            ("fail 0", "`0` is not a count"),
            ("fail -1", "`-1` is not a count"),
            ("fail 99999999999999999999", "is not a count"),
            ("fail 2 EWHAT", "`EWHAT` is not an error"),
            ("fail 2 EAGAIN now", "is not an order"),
            ("fail-for 2", "`2` is not a time"),
            ("fail-for s", "`s` is not a time"),
            ("fail-for 18446744073709551615m", "is not a time"),
            ("stop it", "is not an order"),
        ] {
            let error = line.parse::<Order>().unwrap_err().to_string();
            assert!(error.contains(part), "{line:?} gave {error:?}");
        }
    }

    #[test]
    fn each_line_gets_one_answer() {
        let (here, there) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || answer_lines(&there, |order| format!("ok {order:?}")));
        (&here).write_all(b"counts\nnonsense\nstop\n").unwrap();
        here.shutdown(std::net::Shutdown::Write).unwrap();
        let lines: Vec<String> = BufReader::new(&here).lines().map(Result::unwrap).collect();
        serving.join().unwrap().unwrap();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(
            (lines[0].as_str(), lines[2].as_str()),
            ("ok Counts", "ok Stop")
        );
        assert!(lines[1].starts_with("error `nonsense`"), "{lines:?}");
    }

    #[test]
    fn a_line_without_end_is_not_read_for_ever() {
        let (here, there) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || answer_lines(&there, |order| format!("ok {order:?}")));
        (&here).write_all(&[b'x'; LINE_LIMIT as usize]).unwrap();
        let mut answer = String::new();
        (&here).read_to_string(&mut answer).unwrap();
        serving.join().unwrap().unwrap();
        assert!(answer.starts_with("error"), "{answer}");
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        let control = Control::bind(&path).unwrap();
        assert_eq!(
            Control::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(control);
        assert!(!path.exists());
    }
}
