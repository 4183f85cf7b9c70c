//! The model's splices: pipes are lent and filled as the worker does it.

use super::kernel::{Piped, pipe_name};
use super::world::{World, reset_by};
use crate::backend::Errno;
use crate::flow::Side;

impl World {
    pub(super) fn pump(&mut self) {
        let share = self.plan.share_bytes;
        for from in Side::BOTH {
            // Less than the worker does in a turn, so that the turns mix.
            for _ in 0..4 {
                let into = self.flow.may_splice_in(from, share, self.now);
                if into.is_none() && self.flow.pipe(from).is_none() {
                    break;
                }
                if self.flow.pipe(from).is_none() {
                    self.lend_pipe(from);
                }
                if let Some(most) = into {
                    let result = self.splice_in(from, most);
                    self.flow.on_spliced_in(from, result, self.now);
                }
                let out = self.flow.may_splice_out(from, self.now);
                if let Some(held) = out {
                    let result = self.splice_out(from, held);
                    self.flow.on_spliced_out(from, result, self.now);
                }
                if into.is_none() && out.is_none() {
                    break;
                }
            }
            if let Some(pipe) = self.flow.take_empty_pipe(from) {
                let piped = &mut self.pipes[pipe.read as usize / 2];
                assert_eq!(piped.bytes, 0, "a pipe with bytes is given back");
                piped.is_lent = false;
            }
        }
        self.is_streaming = self.flow.has_splice_work(share, self.now);
    }

    pub(super) fn lend_pipe(&mut self, from: Side) {
        let index = self
            .pipes
            .iter()
            .position(|pipe| !pipe.is_lent)
            .unwrap_or_else(|| {
                self.pipes.push(Piped {
                    bytes: 0,
                    is_lent: false,
                });
                self.pipes.len() - 1
            });
        self.pipes[index].is_lent = true;
        self.flow.lend_pipe(from, pipe_name(index));
    }

    pub(super) fn piped(&mut self, from: Side) -> &mut Piped {
        let pipe = self.flow.pipe(from).expect("a pipe is lent");
        &mut self.pipes[pipe.read as usize / 2]
    }

    pub(super) fn splice_in(&mut self, from: Side, most: usize) -> Result<usize, Errno> {
        let room = u64::from(self.plan.pipe_bytes - self.piped(from).bytes);
        let held = self.piped(from).bytes;
        // A pipe is full by its slots, whatever their bytes.
        if room == 0 || (held > 0 && self.choose(3) == 2) {
            return Err(Errno(libc::EAGAIN));
        }
        if self.goes_wrong(8) {
            return Err(Errno([libc::ENOMEM, libc::EINTR][self.choose(2)]));
        }
        let socket = &self.sockets[from as usize];
        assert!(socket.is_non_blocking);
        let (unread, ended) = (socket.unread(), socket.ended);
        if let Some(errno) = socket.read_error() {
            return Err(errno);
        }
        if unread == 0 {
            return if ended {
                self.moved_at = self.now;
                Ok(0)
            } else {
                Err(Errno(libc::EAGAIN))
            };
        }
        let bytes = self.amount(unread.min(most as u64).min(room));
        self.moved_at = self.now;
        self.socket(from).received += u64::from(bytes);
        self.piped(from).bytes += bytes;
        Ok(bytes as usize)
    }

    pub(super) fn splice_out(&mut self, from: Side, most: usize) -> Result<usize, Errno> {
        let sink = from.other();
        assert_eq!(
            most as u32,
            self.piped(from).bytes,
            "the flow miscounts its pipe"
        );
        if let Some(errno) = self.sockets[sink as usize].write_error() {
            self.causes.insert(reset_by(sink));
            return Err(errno);
        }
        if self.sockets[sink as usize].room == 0 {
            self.socket(sink).was_full = true;
            return Err(Errno(libc::EAGAIN));
        }
        if self.goes_wrong(8) {
            return [Err(Errno(libc::ENOMEM)), Err(Errno(libc::EINTR)), Ok(0)][self.choose(3)];
        }
        let bytes = self.amount(u64::from(self.sockets[sink as usize].room).min(most as u64));
        self.moved_at = self.now;
        self.socket(sink).take(bytes);
        self.piped(from).bytes -= bytes;
        Ok(bytes as usize)
    }
}
