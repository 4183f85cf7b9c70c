//! Pipes of the simulated kernel, and splicing through them. It owns what a pipe holds: the bytes themselves, so that
//! one which is lent again with something in it shows.

use std::collections::VecDeque;

use super::kernel::{Kernel, Notice};
use crate::backend::{Errno, Pipe, SocketId};

/// Simulated pipes are numbered from here.
pub(super) const FIRST_PIPE: i32 = 1 << 28;

/// What a pipe holds.
const PIPE_BYTES: usize = 1 << 20;

impl Kernel {
    /// Pipes that are open.
    pub fn pipes_open(&self) -> usize {
        self.pipes.len()
    }

    pub(super) fn pipe(&mut self) -> Result<Pipe, Errno> {
        if self.descriptors + 2 > self.descriptor_limit || self.strikes(self.faults.no_descriptor) {
            return Err(Errno(libc::EMFILE));
        }
        let read = self.next_pipe;
        self.next_pipe += 2;
        self.descriptors += 2;
        self.pipes.insert(read, VecDeque::new());
        Ok(Pipe {
            read,
            write: read + 1,
        })
    }

    pub(super) fn close_pipe(&mut self, pipe: Pipe) {
        if self.pipes.remove(&pipe.read).is_none() {
            return self.violate("a pipe is closed twice");
        }
        self.descriptors -= 2;
    }

    pub(super) fn splice_in(
        &mut self,
        socket: SocketId,
        pipe: Pipe,
        most: usize,
    ) -> Result<usize, Errno> {
        let link = self.splicing_link(socket)?;
        let held = self.pipes.get(&pipe.read).map_or(0, VecDeque::len);
        let state = &mut self.links[link];
        if state.unread() == 0 {
            return match (state.error, state.peer_ended) {
                (Some(errno), _) => Err(errno),
                (None, true) => {
                    state.end_was_told = true;
                    Ok(0)
                }
                (None, false) => Err(Errno(libc::EAGAIN)),
            };
        }
        let mut bytes = most.min(state.unread() as usize).min(PIPE_BYTES - held);
        if bytes == 0 {
            return Err(Errno(libc::EAGAIN));
        }
        if self.strikes(self.faults.short) {
            bytes = self.random.usize(1..=bytes);
        }
        let moved = self.links[link].take(bytes as u64);
        self.pipes.entry(pipe.read).or_default().extend(moved);
        self.notices.push_back(Notice::Touched(link));
        Ok(bytes)
    }

    pub(super) fn splice_out(
        &mut self,
        pipe: Pipe,
        socket: SocketId,
        most: usize,
    ) -> Result<usize, Errno> {
        let link = self.splicing_link(socket)?;
        if self.links[link].error.is_some() {
            return Err(Errno(libc::EPIPE));
        }
        let held = self.pipes.get(&pipe.read).map_or(0, VecDeque::len);
        let mut bytes = most.min(held).min(self.links[link].room() as usize);
        if bytes == 0 {
            return Err(Errno(libc::EAGAIN));
        }
        if self.strikes(self.faults.short) {
            bytes = self.random.usize(1..=bytes);
        }
        let pipe = self.pipes.entry(pipe.read).or_default();
        let moved: Vec<u8> = pipe.drain(..bytes).collect();
        self.counts.spliced += bytes as u64;
        self.write(link, &moved);
        Ok(bytes)
    }

    fn splicing_link(&mut self, socket: SocketId) -> Result<usize, Errno> {
        let link = self.link_of(socket).ok_or(Errno(libc::EBADF))?;
        if !self.links[link].splices {
            self.violate(format!("link {link} is spliced, and its socket blocks"));
        }
        Ok(link)
    }
}
