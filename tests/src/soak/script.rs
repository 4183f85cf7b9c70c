//! What one connection of the soak does, at both ends: the client tells the application in a header, and both check
//! every byte. It decides nothing about whether an early end was right; that is for the accounts.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::traffic::{Pattern, Stream, Trouble};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Small messages, each answered, with short pauses.
    Pings,
    /// One request, one answer, the end.
    Request,
    /// Many bytes both ways at once.
    Bulk,
    /// The client ends its stream before the application answers.
    AnswerAfterEnd,
    /// The application ends its stream before the client sends.
    EndBeforeRequest,
    /// The client resets the connection in the middle.
    ClientResets,
    /// The application does.
    ServerResets,
    /// The client takes nothing for a while, and then all.
    SlowClient,
    /// The application does.
    SlowServer,
    /// Two messages with a long silence between them.
    Idle,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 10] = [
        Self::Pings,
        Self::Request,
        Self::Bulk,
        Self::AnswerAfterEnd,
        Self::EndBeforeRequest,
        Self::ClientResets,
        Self::ServerResets,
        Self::SlowClient,
        Self::SlowServer,
        Self::Idle,
    ];
}

/// How an end of a connection came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Everything came as it should, the end included.
    Complete,
    /// There was no connection: refused, or reset while connecting.
    TurnedAway(String),
    /// It ended before it should have.
    CutShort(String),
    /// A byte was lost, doubled or foreign, more came than was sent, or nothing came for too long. Never excused.
    Wrong(String),
}

impl From<Result<(), Trouble>> for End {
    fn from(result: Result<(), Trouble>) -> Self {
        match result {
            Ok(()) => Self::Complete,
            Err(trouble @ Trouble::EndedEarly { .. }) => Self::CutShort(trouble.to_string()),
            Err(trouble) if trouble.is_reset() => Self::CutShort(trouble.to_string()),
            Err(trouble) => Self::Wrong(trouble.to_string()),
        }
    }
}

/// One connection's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// What it is for.
    pub shape: Shape,
    /// Unlike any other's of the run; its bytes follow from it.
    pub id: u64,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes from the application.
    pub down: u64,
    /// Bytes of a message, or sent at a time.
    pub piece: u64,
    /// How long it is silent, in milliseconds.
    pub pause_ms: u64,
}

/// A script in numbers, before everything else on a connection.
const HEADER_BYTES: usize = 48;

impl Script {
    /// The next connection of a client whose random numbers these are.
    pub fn random(random: &mut Rng, id: u64) -> Self {
        const KIB: u64 = 1 << 10;
        // Most are short, as in life.
        let shape = match random.u32(0..100) {
            0..20 => Shape::Pings,
            20..55 => Shape::Request,
            55..65 => Shape::Bulk,
            65..72 => Shape::AnswerAfterEnd,
            72..79 => Shape::EndBeforeRequest,
            79..84 => Shape::ClientResets,
            84..89 => Shape::ServerResets,
            89..93 => Shape::SlowClient,
            93..97 => Shape::SlowServer,
            _ => Shape::Idle,
        };
        let mut script = Self {
            shape,
            id,
            up: random.u64(1..16 * KIB),
            down: random.u64(1..64 * KIB),
            piece: random.u64(1..64 * KIB),
            pause_ms: 0,
        };
        match shape {
            Shape::Pings => {
                script.piece = random.u64(1..2 * KIB);
                script.up = script.piece * random.u64(5..200);
                script.pause_ms = random.u64(0..10);
            }
            Shape::Idle => {
                script.up = 2 * script.piece;
                script.pause_ms = random.u64(500..3_000);
            }
            Shape::Bulk => {
                script.up = random.u64(256 * KIB..3 * 1024 * KIB);
                script.down = script.up;
            }
            Shape::AnswerAfterEnd | Shape::EndBeforeRequest => {
                script.up = random.u64(1..512 * KIB);
                script.down = random.u64(1..512 * KIB);
            }
            Shape::SlowClient => {
                script.down = random.u64(1024 * KIB..2 * 1024 * KIB);
                script.pause_ms = random.u64(200..1_500);
            }
            Shape::SlowServer => {
                script.up = random.u64(1024 * KIB..2 * 1024 * KIB);
                script.pause_ms = random.u64(200..1_500);
            }
            Shape::Request | Shape::ClientResets | Shape::ServerResets => {}
        }
        script
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let numbers = [
            self.shape as u64,
            self.id,
            self.up,
            self.down,
            self.piece,
            self.pause_ms,
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads the header of a connection; nothing where it ended before, or where there is none.
    pub fn read(mut stream: &Stream) -> Option<Self> {
        let mut bytes = [0; HEADER_BYTES];
        stream.read_exact(&mut bytes).ok()?;
        let mut numbers = bytes
            .chunks_exact(8)
            .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        let mut next = || numbers.next().unwrap_or(0);
        Some(Self {
            shape: *Shape::ALL.get(usize::try_from(next()).ok()?)?,
            id: next(),
            up: next(),
            down: next(),
            piece: next(),
            pause_ms: next(),
        })
    }

    fn patterns(self) -> (Pattern, Pattern) {
        (Pattern::new(self.id), Pattern::new(!self.id))
    }

    fn piece(self) -> usize {
        usize::try_from(self.piece).unwrap_or(1 << 16).max(1)
    }

    fn pause(self) {
        thread::sleep(Duration::from_millis(self.pause_ms));
    }

    /// Connects to `address` and plays the client.
    pub fn play_client(self, address: SocketAddr) -> End {
        match Stream::connect(address) {
            Ok(stream) => self.client(&stream).into(),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                    End::TurnedAway(error.to_string())
                }
                _ => End::Wrong(format!("connecting: {error}")),
            },
        }
    }

    fn client(self, stream: &Stream) -> Result<(), Trouble> {
        let (up, down) = self.patterns();
        let mut writer = stream;
        writer
            .write_all(&self.to_bytes())
            .map_err(trouble("sending its header"))?;
        match self.shape {
            Shape::Pings | Shape::Idle => {
                let mut at = 0;
                while at < self.up {
                    stream.ping(up, at, at + self.piece)?;
                    at += self.piece;
                    self.pause();
                }
                finish(stream)?;
                stream.receive_end(at)
            }
            Shape::Request => {
                stream.send(up, 0, self.up, self.piece())?;
                stream.receive_to_end(down, 0, self.down)
            }
            Shape::Bulk => {
                stream.exchange(up, down, 0..self.up, self.piece())?;
                finish(stream)?;
                stream.receive_end(self.down)
            }
            Shape::AnswerAfterEnd => {
                stream.send(up, 0, self.up, self.piece())?;
                finish(stream)?;
                stream.receive_to_end(down, 0, self.down)
            }
            Shape::EndBeforeRequest => {
                stream.receive_to_end(down, 0, self.down)?;
                stream.send(up, 0, self.up, self.piece())?;
                finish(stream)
            }
            Shape::ClientResets => {
                stream.send(up, 0, self.up, self.piece())?;
                stream.receive(down, 0, self.piece)?;
                stream.reset_on_close().map_err(trouble("resetting"))
            }
            Shape::ServerResets => {
                stream.send(up, 0, self.up, self.piece())?;
                await_reset(stream)
            }
            Shape::SlowClient => {
                self.pause();
                stream.receive_to_end(down, 0, self.down)
            }
            Shape::SlowServer => {
                stream.send(up, 0, self.up, self.piece())?;
                finish(stream)?;
                stream.receive_to_end(down, 0, 1)
            }
        }
    }

    /// Plays the application on a connection whose header was read.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn play_application(self, stream: &Stream) -> Result<(), Trouble> {
        let (up, down) = self.patterns();
        match self.shape {
            Shape::Pings | Shape::Idle => {
                let mut at = 0;
                while at < self.up {
                    stream.receive(up, at, at + self.piece)?;
                    stream.send(up, at, at + self.piece, self.piece())?;
                    at += self.piece;
                }
                stream.receive_end(at)?;
                finish(stream)
            }
            Shape::Request => {
                stream.receive(up, 0, self.up)?;
                stream.send(down, 0, self.down, self.piece())?;
                finish(stream)?;
                stream.receive_end(self.up)
            }
            Shape::Bulk => {
                stream.exchange(down, up, 0..self.up, self.piece())?;
                stream.receive_end(self.up)?;
                finish(stream)
            }
            Shape::AnswerAfterEnd => {
                stream.receive_to_end(up, 0, self.up)?;
                stream.send(down, 0, self.down, self.piece())?;
                finish(stream)
            }
            Shape::EndBeforeRequest => {
                stream.send(down, 0, self.down, self.piece())?;
                finish(stream)?;
                stream.receive_to_end(up, 0, self.up)
            }
            Shape::ClientResets => {
                stream.receive(up, 0, self.up)?;
                stream.send(down, 0, self.piece, self.piece())?;
                await_reset(stream)
            }
            Shape::ServerResets => {
                stream.receive(up, 0, self.up)?;
                stream.reset_on_close().map_err(trouble("resetting"))
            }
            Shape::SlowClient => {
                stream.send(down, 0, self.down, self.piece())?;
                finish(stream)?;
                stream.receive_end(0)
            }
            Shape::SlowServer => {
                self.pause();
                stream.receive_to_end(up, 0, self.up)?;
                // An end alone could be that of an application which went away.
                stream.send(down, 0, 1, 1)?;
                finish(stream)
            }
        }
    }
}

fn trouble(doing: &'static str) -> impl Fn(io::Error) -> Trouble {
    move |source| Trouble::Io {
        doing,
        after: 0,
        source,
    }
}

fn finish(stream: &Stream) -> Result<(), Trouble> {
    stream.finish().map_err(trouble("finishing"))
}

/// A reset, and nothing else: an end in order would pass what was cut short for complete.
fn await_reset(mut stream: &Stream) -> Result<(), Trouble> {
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(source) => Err(trouble("waiting for a reset")(source)),
        Ok(0) => Err(trouble("waiting for a reset")(io::Error::new(
            io::ErrorKind::NotConnected,
            "an end in order came in its place",
        ))),
        Ok(_) => Err(Trouble::WentOn(0)),
    }
}
