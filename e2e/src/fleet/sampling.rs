//! Who of a fleet is away, looked at every 10 ms for as long as it takes, and how many were away at once.
//!
//! Each step looks at every sidecar: at a stubbed one in memory, at a real one by `GET /readyz` on a connection that stays open, as
//! a kubelet's probe would. Answers of one step are not of one moment, so that a permit which moves meanwhile could be counted with
//! both. Therefore what is counted is intervals, on one clock: from the end of the first look that found a sidecar away to the
//! beginning of the last one that did, it was away *for certain*; from the beginning of the first to the end of the last,
//! *perhaps*. What is certain must never be above the limit. It owns the thread and the intervals; it judges nothing.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The time from one step to the next.
pub const STEP: Duration = Duration::from_millis(10);

/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// What a sidecar is asked by.
pub enum Subject {
    /// In memory: whether it would say at this moment that it is not ready.
    Asked(Box<dyn FnMut() -> bool + Send>),
    /// By its admin port.
    Probed(SocketAddr),
}

/// When one sidecar was away.
#[derive(Clone, Debug, Default)]
struct Away {
    /// Certain and perhaps: from, to.
    past: Vec<[(Duration, Duration); 2]>,
    now: Option<[(Duration, Duration); 2]>,
}

impl Away {
    fn look(&mut self, asked: Duration, told: Duration, is_away: bool) {
        if !is_away {
            self.past.extend(self.now.take());
            return;
        }
        let [certain, perhaps] = self.now.get_or_insert([(told, asked), (asked, told)]);
        (certain.1, perhaps.1) = (asked, told);
    }
}

/// How many were away at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// At one moment, for certain.
    pub certain: usize,
    /// Counting also who may have been a moment earlier or later.
    pub perhaps: usize,
}

/// The most that were away at once of these, from `since` on.
fn peak<'a>(all: impl Iterator<Item = &'a Away> + Clone, since: Duration) -> Peak {
    let most = |which: usize| {
        let mut edges: Vec<(Duration, i8)> = Vec::new();
        for away in all.clone() {
            for spans in away.past.iter().chain(&away.now) {
                let (from, to) = spans[which];
                // One look alone at a process says nothing of any one moment.
                if from <= to && to >= since {
                    edges.extend([(from.max(since), 0), (to, 1)]);
                }
            }
        }
        // Whoever comes at the moment at which another goes was there with it.
        edges.sort_unstable();
        let (mut now, mut most) = (0_usize, 0);
        for (_, goes) in edges {
            now = if goes == 1 { now - 1 } else { now + 1 };
            most = most.max(now);
        }
        most
    };
    Peak {
        certain: most(0),
        perhaps: most(1),
    }
}

#[derive(Default)]
struct Seen {
    away: BTreeMap<String, Away>,
    steps: u64,
    longest_gap: Duration,
}

struct Shared {
    epoch: Instant,
    ends: AtomicBool,
    subjects: Mutex<BTreeMap<String, Watched>>,
    seen: Mutex<Seen>,
}

struct Watched {
    subject: Subject,
    connection: Option<BufReader<TcpStream>>,
}

/// A thread that looks; it ends when this is dropped.
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::start()
    }
}

impl Sampler {
    /// Begins, with nobody to look at.
    ///
    /// # Panics
    /// Without a thread.
    pub fn start() -> Self {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            ends: AtomicBool::new(false),
            subjects: Mutex::default(),
            seen: Mutex::default(),
        });
        let looking = shared.clone();
        let thread = thread::Builder::new().name("sampler".to_owned());
        let thread = thread.spawn(move || {
            let mut last = None;
            while !looking.ends.load(Ordering::Relaxed) {
                let begin = Instant::now();
                looking.step(last.map(|last| begin - last));
                last = Some(begin);
                thread::sleep(STEP.saturating_sub(begin.elapsed()));
            }
        });
        Self {
            shared,
            thread: Some(thread.expect("a thread for the sampler")),
        }
    }

    /// Looks at one more.
    pub fn watch(&self, name: &str, subject: Subject) {
        let watched = Watched {
            subject,
            connection: None,
        };
        lock(&self.shared.subjects).insert(name.to_owned(), watched);
    }

    /// Looks no more at one that is gone: from now on it is nobody's.
    pub fn forget(&self, name: &str) {
        lock(&self.shared.subjects).remove(name);
        let mut seen = lock(&self.shared.seen);
        if let Some(away) = seen.away.get_mut(name) {
            away.past.extend(away.now.take());
        }
    }

    /// The time on its clock.
    pub fn now(&self) -> Duration {
        self.shared.epoch.elapsed()
    }

    /// Who was away at the last step.
    pub fn away(&self) -> Vec<String> {
        let seen = lock(&self.shared.seen);
        let away = seen.away.iter().filter(|(_, away)| away.now.is_some());
        away.map(|(name, _)| name.clone()).collect()
    }

    /// The most of those whose name begins so that were away at once since that time.
    pub fn peak(&self, prefix: &str, since: Duration) -> Peak {
        let seen = lock(&self.shared.seen);
        let of = seen
            .away
            .iter()
            .filter(|(name, _)| name.starts_with(prefix));
        peak(of.map(|(_, away)| away), since)
    }

    /// How often a sidecar left since that time, all together.
    pub fn departures(&self, since: Duration) -> usize {
        let seen = lock(&self.shared.seen);
        let spans = seen
            .away
            .values()
            .flat_map(|away| away.past.iter().chain(&away.now));
        spans.filter(|spans| spans[1].0 >= since).count()
    }

    /// Steps so far, and the longest time from one to the next.
    pub fn steps(&self) -> (u64, Duration) {
        let seen = lock(&self.shared.seen);
        (seen.steps, seen.longest_gap)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn step(&self, gap: Option<Duration>) {
        let mut subjects = lock(&self.subjects);
        // All are asked before the first is heard, so that they answer side by side.
        let mut asked = BTreeMap::new();
        for (name, watched) in subjects.iter_mut() {
            if let Subject::Probed(address) = watched.subject {
                asked.insert(name.clone(), self.epoch.elapsed());
                watched.ask(address);
            }
        }
        let mut looks = Vec::with_capacity(subjects.len());
        for (name, watched) in subjects.iter_mut() {
            let begin = asked
                .get(name)
                .copied()
                .unwrap_or_else(|| self.epoch.elapsed());
            let is_away = match &mut watched.subject {
                Subject::Asked(is_away) => Some(is_away()),
                Subject::Probed(_) => watched.hear(),
            };
            // In memory it is one moment; whoever does not answer is looked at in the next step.
            if let Some(is_away) = is_away {
                let end = match watched.subject {
                    Subject::Asked(_) => begin,
                    Subject::Probed(_) => self.epoch.elapsed(),
                };
                looks.push((name.clone(), begin, end, is_away));
            }
        }
        let mut seen = lock(&self.seen);
        seen.steps += 1;
        seen.longest_gap = seen.longest_gap.max(gap.unwrap_or_default());
        for (name, begin, end, is_away) in looks {
            seen.away.entry(name).or_default().look(begin, end, is_away);
        }
    }
}

impl Watched {
    /// An admin listener ends a connection after a minute; then there is a new one.
    fn ask(&mut self, address: SocketAddr) {
        let request = b"GET /readyz HTTP/1.1\r\nHost: probe\r\n\r\n";
        if let Some(connection) = &mut self.connection
            && connection.get_mut().write_all(request).is_ok()
        {
            return;
        }
        self.connection = TcpStream::connect(address).ok().and_then(|mut stream| {
            stream.set_read_timeout(Some(LOOK_LIMIT)).ok()?;
            stream.set_nodelay(true).ok()?;
            stream.write_all(request).ok()?;
            Some(BufReader::new(stream))
        });
    }

    fn hear(&mut self) -> Option<bool> {
        let answer = self.connection.as_mut().map(status);
        match answer {
            Some(Ok(status)) => Some(status != 200),
            _ => {
                self.connection = None;
                None
            }
        }
    }
}

/// The status of the next answer, read whole.
fn status(connection: &mut BufReader<TcpStream>) -> io::Result<u16> {
    let no_http = || io::Error::other("no HTTP");
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).ok_or_else(no_http)?;
    let status = status.parse().map_err(|_| no_http())?;
    let mut length = 0;
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(no_http());
        }
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| no_http())?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn looks(looks: &[(u64, u64, bool)]) -> Away {
        let mut away = Away::default();
        for &(asked, told, is_away) in looks {
            away.look(at(asked), at(told), is_away);
        }
        away
    }

    #[test]
    fn a_permit_that_moves_within_a_step_is_not_counted_twice() {
        let first = looks(&[(0, 1, true), (10, 11, true), (20, 21, false)]);
        let second = looks(&[(2, 9, false), (12, 19, true), (22, 29, true)]);
        let both = [first, second];
        let found = peak(both.iter(), Duration::ZERO);
        assert_eq!((found.certain, found.perhaps), (1, 1));
        // At once, and so seen.
        let third = looks(&[(5, 6, true), (15, 16, true), (25, 26, true)]);
        let found = peak(both.iter().chain([&third]), Duration::ZERO);
        assert_eq!(found.certain, 2);
        assert_eq!(
            peak(both.iter().chain([&third]), at(21)).certain,
            2,
            "still away"
        );
        assert_eq!(peak(both[..1].iter(), at(24)).certain, 0);
    }

    #[test]
    fn one_look_in_memory_is_a_moment_and_one_at_a_process_is_not() {
        let moment = looks(&[(10, 10, true), (20, 20, false)]);
        assert_eq!(peak([&moment].into_iter(), Duration::ZERO).certain, 1);
        let process = looks(&[(10, 12, true), (20, 22, false)]);
        let found = peak([&process].into_iter(), Duration::ZERO);
        assert_eq!((found.certain, found.perhaps), (0, 1));
    }
}
