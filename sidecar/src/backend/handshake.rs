//! Whether somebody listens at an address, found out without a connection that they would see.
//!
//! Owns the sockets of a check for as long as it lasts. It never completes a handshake: a TCP check ends with a reset
//! before the acknowledgement that would make it a connection, so that the application's accept never returns for it;
//! a Unix check asks for another kind of socket than the one that is there. It judges nothing.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// Checks that are under way at once: each takes a descriptor of those that are kept back for the process.
const AT_ONCE: usize = 8;

/// How a check was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Somebody listens.
    Accepted,
    /// Nobody does: a reset, or no socket at a Unix path.
    Refused,
    /// Nothing came in time, as when the application's backlog is full.
    TimedOut,
    /// There is no way to the target.
    Unreachable,
    /// It could not be asked, as for want of descriptors; this says nothing of the target.
    Failed,
}

impl Answer {
    /// Every answer, in the order of [`Answer::index`].
    pub const ALL: [Answer; 5] = [
        Answer::Accepted,
        Answer::Refused,
        Answer::TimedOut,
        Answer::Unreachable,
        Answer::Failed,
    ];

    /// Its place in [`Answer::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric's label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Answer::Accepted => "accepted",
            Answer::Refused => "refused",
            Answer::TimedOut => "timeout",
            Answer::Unreachable => "unreachable",
            Answer::Failed => "failed",
        }
    }

    /// What the answers of a target's addresses mean together: it takes connections where one of them does, and
    /// refuses where all do. `None` without an address.
    #[must_use]
    pub fn of_all(answers: &[Answer]) -> Option<Answer> {
        let has = |wanted| answers.contains(&wanted).then_some(wanted);
        // What hides whether an address refuses comes before the refusals of others.
        has(Answer::Accepted)
            .or_else(|| has(Answer::TimedOut))
            .or_else(|| has(Answer::Unreachable))
            .or_else(|| has(Answer::Failed))
            .or_else(|| has(Answer::Refused))
    }
}

/// Asks every target by its addresses, several at once and no round for longer than `limit`; an answer for each target
/// in their order, none for one without an address. Waits, and so is not for a worker.
pub fn ask(targets: &[Vec<SockAddr>], limit: Duration) -> Vec<Option<Answer>> {
    let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); targets.len()];
    let addresses: Vec<(usize, &SockAddr)> = targets
        .iter()
        .enumerate()
        .flat_map(|(target, addresses)| addresses.iter().map(move |address| (target, address)))
        .collect();
    for round in addresses.chunks(AT_ONCE) {
        let mut waiting = Vec::with_capacity(round.len());
        for &(target, address) in round {
            match begin(address) {
                Ok(socket) => waiting.push((target, address, socket)),
                Err(answer) => answers[target].push(answer),
            }
        }
        let deadline = Instant::now() + limit;
        while !waiting.is_empty() {
            // Each is over as soon as it is answered, whoever of the round is not: the acknowledgement is put off for a
            // fifth of a second, and then makes it a connection.
            let Some(answered) = await_some(&waiting, deadline) else {
                break;
            };
            for index in answered.into_iter().rev() {
                let (target, address, socket) = waiting.swap_remove(index);
                answers[target].push(result_of(&socket, address));
            }
        }
        for (target, _, _) in waiting {
            answers[target].push(Answer::TimedOut);
        }
    }
    answers
        .iter()
        .map(|answers| Answer::of_all(answers))
        .collect()
}

/// Starts a connect that does not wait; or the answer, where it is there at once.
fn begin(address: &SockAddr) -> Result<Socket, Answer> {
    let is_unix = address.is_unix();
    // A stream is listened for at a Unix path. Asked for datagrams, the kernel says that the kind is wrong where a
    // socket is, and refuses where none is; the application hears of neither.
    let kind = if is_unix { Type::DGRAM } else { Type::STREAM };
    let domain = Domain::from(i32::from(address.family()));
    let socket =
        Socket::new(domain, kind.nonblocking().cloexec(), None).map_err(|_| Answer::Failed)?;
    if !is_unix {
        // The acknowledgement is put off, and closing sends a reset in its place.
        let prepared = socket
            .set_tcp_quickack(false)
            .and_then(|()| socket.set_linger(Some(Duration::ZERO)));
        prepared.map_err(|_| Answer::Failed)?;
    }
    match socket.connect(address) {
        Ok(()) => Ok(socket),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(error) => Err(of_error(&error)),
    }
}

/// The answer to a connect that is over.
fn result_of(socket: &Socket, address: &SockAddr) -> Answer {
    match socket.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return of_error(&error),
    }
    // Where nobody listens, a port of the range that the kernel takes for clients can be given to this very socket, which
    // then meets itself.
    let meets_itself = address.is_ipv4() || address.is_ipv6();
    if meets_itself && socket.local_addr().is_ok_and(|own| own == *address) {
        return Answer::Refused;
    }
    Answer::Accepted
}

fn of_error(error: &io::Error) -> Answer {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ENOENT | libc::ENOTDIR) => Answer::Refused,
        Some(libc::EPROTOTYPE) => Answer::Accepted,
        Some(libc::ETIMEDOUT) => Answer::TimedOut,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
            Answer::Unreachable
        }
        _ => Answer::Failed,
    }
}

/// Waits until some of the connects are over, at most until `deadline`; their places, in order, or `None` if none is.
fn await_some(waiting: &[(usize, &SockAddr, Socket)], deadline: Instant) -> Option<Vec<usize>> {
    let poll_for = |(_, _, socket): &(usize, &SockAddr, Socket)| libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let mut polls: Vec<libc::pollfd> = waiting.iter().map(poll_for).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the end of the wait is not spun through.
        let millis = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
        // SAFETY: `polls` are as many pollfds as is said, live for the call, and the kernel writes their `revents` only.
        match unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, millis) } {
            1.. => break,
            // A signal, or memory that was short.
            -1 if !left.is_zero() => {}
            _ => return None,
        }
    }
    let is_over = |(place, poll): (usize, &libc::pollfd)| (poll.revents != 0).then_some(place);
    Some(polls.iter().enumerate().filter_map(is_over).collect())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::net::UnixListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn ask_one(address: &SockAddr) -> Option<Answer> {
        ask(&[vec![address.clone()]], LIMIT)[0]
    }

    #[test]
    fn who_listens_is_found_and_sees_nothing_of_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SockAddr::from(listener.local_addr().unwrap());
        for _ in 0..100 {
            assert_eq!(ask_one(&address), Some(Answer::Accepted));
        }
        // What is in the backlog is there before the next connect has returned.
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_, first) = listener.accept().unwrap();
        assert_eq!(first, client.local_addr().unwrap());
        drop(listener);
        assert_eq!(ask_one(&address), Some(Answer::Refused));
    }

    #[test]
    fn a_unix_socket_is_found_and_sees_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let address = SockAddr::unix(&path).unwrap();
        assert_eq!(ask_one(&address), Some(Answer::Refused));
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(ask_one(&address), Some(Answer::Accepted));
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(listener);
        assert_eq!(ask_one(&address), Some(Answer::Refused));
        let below_a_file = SockAddr::unix(path.join("more")).unwrap();
        assert_eq!(ask_one(&below_a_file), Some(Answer::Refused));
    }

    #[test]
    fn many_addresses_are_asked_a_few_at_a_time_and_a_target_without_one_has_no_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let there = SockAddr::from(listener.local_addr().unwrap());
        let gone = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            SockAddr::from(listener.local_addr().unwrap())
        };
        let mut mixed = vec![gone.clone(); 3 * AT_ONCE];
        mixed.push(there);
        let answers = ask(&[vec![gone; 2 * AT_ONCE + 1], Vec::new(), mixed], LIMIT);
        assert_eq!(
            answers,
            [Some(Answer::Refused), None, Some(Answer::Accepted)]
        );
    }

    #[test]
    fn a_full_backlog_is_no_refusal() {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let fill = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
            let _ = socket.connect(&address);
            socket
        };
        let _waiting: Vec<Socket> = (0..8).map(|_| fill()).collect();
        let answers = ask(&[vec![address.clone()]], Duration::from_millis(50));
        assert_eq!(answers, [Some(Answer::TimedOut)]);
    }

    #[test]
    fn who_listens_sees_nothing_either_while_another_does_not_answer() {
        let busy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        busy.bind(&any.into()).unwrap();
        busy.listen(0).unwrap();
        let busy_at = busy.local_addr().unwrap();
        let fill = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
            let _ = socket.connect(&busy_at);
            socket
        };
        let _waiting: Vec<Socket> = (0..8).map(|_| fill()).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let there = SockAddr::from(listener.local_addr().unwrap());
        // Longer than the kernel puts an acknowledgement off.
        let limit = Duration::from_millis(600);
        let answers = ask(&[vec![busy_at.clone()], vec![there]], limit);
        assert_eq!(answers, [Some(Answer::TimedOut), Some(Answer::Accepted)]);
        listener.set_nonblocking(true).unwrap();
        let seen = listener.accept().map(|_| "a connection");
        assert_eq!(seen.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
