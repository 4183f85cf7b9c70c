//! Names of operations: what a completion is matched to. It owns the layout of the 64 bits that the
//! kernel carries for us; it never says what a key means, which is the worker's.

/// What kind of operation a completion belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OperationKind {
    /// Operations of the backend's own, such as cancels: their completions are not reported.
    Internal = 0,
    /// [`super::Operation::Accept`]
    Accept = 1,
    /// [`super::Operation::Connect`]
    Connect = 2,
    /// [`super::Operation::Receive`]
    Receive = 3,
    /// [`super::Operation::Send`]
    Send = 4,
    /// [`super::Operation::Poll`]
    Poll = 5,
    /// [`super::Operation::Watch`]
    Watch = 7,
    /// The backend's own poll of its [`super::Waker`].
    Wake = 6,
}

/// The name of an operation: its kind and a key of 60 bits. Two operations in flight never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

const KEY_BITS: u32 = 60;

impl Token {
    /// The token of operations whose completions nobody waits for.
    pub const INTERNAL: Token = Token(0);
    /// The token of the poll on the waker.
    pub const WAKE: Token = Token((OperationKind::Wake as u64) << KEY_BITS);

    /// A token of this kind; of `key` the low 60 bits count.
    pub fn new(kind: OperationKind, key: u64) -> Self {
        Token((kind as u64) << KEY_BITS | key & ((1 << KEY_BITS) - 1))
    }

    /// As the kernel carries it.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Back from the kernel.
    pub fn from_bits(bits: u64) -> Self {
        Token(bits)
    }

    /// What kind of operation this names.
    pub fn kind(self) -> OperationKind {
        match self.0 >> KEY_BITS {
            1 => OperationKind::Accept,
            2 => OperationKind::Connect,
            3 => OperationKind::Receive,
            4 => OperationKind::Send,
            5 => OperationKind::Poll,
            6 => OperationKind::Wake,
            7 => OperationKind::Watch,
            _ => OperationKind::Internal,
        }
    }

    /// The key it was made with.
    pub fn key(self) -> u64 {
        self.0 & ((1 << KEY_BITS) - 1)
    }
}
