//! What an enabled ring may do: the operations, entry flags and registrations that the relay uses, and no others.
//!
//! It owns that list, which is the one given to the kernel, and how it is given. Seccomp cannot see into a ring, so that
//! these restrictions are what holds there. It never allows anything once the ring is enabled: the kernel would not
//! take it.

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode};

use super::SetupError;

/// IORING_REGISTER_SYNC_CANCEL: cancels while the kernel takes no submissions.
const REGISTER_SYNC_CANCEL: u8 = 24;

/// What a ring may do once it is enabled.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    /// Operations, by their number in an entry.
    pub(super) operations: Vec<u8>,
    /// Flags of an entry, as bits.
    pub(super) flags: u8,
    /// Operations of `io_uring_register`, by their number.
    pub(super) registrations: Vec<u8>,
}

impl Allowed {
    /// All that the relay uses.
    pub(super) fn in_use() -> Self {
        let operations = [
            opcode::Nop::CODE,
            opcode::PollAdd::CODE,
            opcode::Accept::CODE,
            opcode::Connect::CODE,
            opcode::Recv::CODE,
            opcode::Send::CODE,
            opcode::SendMsg::CODE,
            opcode::AsyncCancel::CODE,
        ];
        Allowed {
            operations: operations.to_vec(),
            flags: (Flags::BUFFER_SELECT | Flags::SKIP_SUCCESS).bits(),
            registrations: vec![REGISTER_SYNC_CANCEL],
        }
    }

    /// Has the kernel hold a ring to it that is not enabled yet.
    ///
    /// # Errors
    /// The kernel takes no restrictions.
    pub(super) fn restrict(&self, ring: &IoUring) -> Result<(), SetupError> {
        let mut restrictions: Vec<Restriction> = self
            .operations
            .iter()
            .map(|&code| Restriction::sqe_op(code))
            .collect();
        restrictions.push(Restriction::sqe_flags_allowed(self.flags));
        restrictions.extend(
            self.registrations
                .iter()
                .map(|&code| Restriction::register_op(code)),
        );
        ring.submitter()
            .register_restrictions(&mut restrictions)
            .map_err(SetupError::at("io_uring_register of the restrictions"))
    }
}

#[cfg(test)]
mod tests;
