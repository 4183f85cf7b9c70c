//! A seccomp profile of the OCI runtime's form made into a filter, as a container's runtime does it, and a command held
//! to it.
//!
//! It reads what the shipped profile uses of that form and refuses the rest, so that nothing is passed over in silence.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;

use libc::{sock_filter, sock_fprog};
use serde::Deserialize;
use serde_json::Value;
use syscalls::Sysno;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// From here on x86-64 numbers the calls of its 32-bit variant x32, which a filter for x86-64 must not let through.
const X32: u32 = 0x4000_0000;

// Where `struct seccomp_data` keeps what a filter looks at; both architectures are little-endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: Action,
    default_errno_ret: Option<u32>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: Action,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
}

impl Action {
    fn code(self, errno: Option<u32>) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno => libc::SECCOMP_RET_ERRNO | errno.unwrap_or(libc::EPERM as u32),
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A filter for the architecture that this was built for.
#[derive(Clone)]
pub struct Filter(Arc<[sock_filter]>);

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({} instructions)", self.0.len())
    }
}

impl Filter {
    /// The filter of a profile.
    ///
    /// # Errors
    /// The profile uses what this does not know, or is too long for the kernel.
    pub fn of(profile: &Value) -> Result<Self, String> {
        let profile: Profile = Profile::deserialize(profile).map_err(|error| error.to_string())?;
        let mut text = vec![
            load(ARCH),
            jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
            give(libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
        ];
        if cfg!(target_arch = "x86_64") {
            text.push(jump(libc::BPF_JGE, X32, 0, 1));
            text.push(give(libc::SECCOMP_RET_KILL_PROCESS));
        }
        for rule in &profile.syscalls {
            let action = rule.action.code(rule.errno_ret);
            for name in &rule.names {
                // As a runtime does: this architecture does not have the call.
                let Ok(number) = Sysno::from_str(name) else {
                    continue;
                };
                text.extend(rule_text(number.id() as u32, &rule.args, action)?);
            }
        }
        text.push(give(profile.default_action.code(profile.default_errno_ret)));
        if text.len() > libc::BPF_MAXINSNS as usize {
            return Err(format!("{} instructions are too many", text.len()));
        }
        Ok(Self(text.into()))
    }

    /// `command` starts held to it, and so does all that it starts.
    pub fn hold(&self, command: &mut Command) {
        let filter = self.clone();
        // SAFETY: the closure makes system calls on memory that was there before the fork, and nothing else.
        unsafe { command.pre_exec(move || filter.install()) };
    }

    fn install(&self) -> io::Result<()> {
        let text = sock_fprog {
            len: self.0.len() as u16,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: numbers only.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let filter_mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: `text` points at instructions that outlive the call, and the kernel only reads them.
        if unsafe { libc::prctl(libc::PR_SET_SECCOMP, filter_mode, &raw const text) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// What one call gets if all `conditions` hold. Behind it the call's number is in the accumulator, as before.
fn rule_text(
    number: u32,
    conditions: &[Condition],
    action: u32,
) -> Result<Vec<sock_filter>, String> {
    let mut text = Vec::new();
    match conditions {
        [] => {}
        [condition] => text.extend(condition_text(condition)),
        _ => return Err("several conditions in one rule".to_owned()),
    }
    text.push(give(action));
    if !conditions.is_empty() {
        text.push(load(NUMBER));
    }
    let past = u8::try_from(text.len()).map_err(|_| "a rule is too long".to_owned())?;
    text.insert(0, jump(libc::BPF_JEQ, number, 0, past));
    Ok(text)
}

/// Goes on at its end where the condition holds, and one instruction later where it does not.
fn condition_text(condition: &Condition) -> Vec<sock_filter> {
    let low = load(ARGUMENTS + 8 * condition.index);
    let high = load(ARGUMENTS + 8 * condition.index + 4);
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    let (value_low, value_high) = halves(condition.value);
    match condition.op {
        Operator::Equal => vec![
            high,
            jump(libc::BPF_JEQ, value_high, 0, 3),
            low,
            jump(libc::BPF_JEQ, value_low, 0, 1),
        ],
        // All that follows is at most as high as its value's high half.
        Operator::Less => vec![
            high,
            jump(libc::BPF_JGT, value_high, 4, 0),
            jump(libc::BPF_JEQ, value_high, 0, 2),
            low,
            jump(libc::BPF_JGE, value_low, 1, 0),
        ],
        Operator::Greater => vec![
            high,
            jump(libc::BPF_JGT, value_high, 3, 0),
            jump(libc::BPF_JEQ, value_high, 0, 3),
            low,
            jump(libc::BPF_JGT, value_low, 0, 1),
        ],
        Operator::MaskedEqual => {
            let (wanted_low, wanted_high) = halves(condition.value_two);
            vec![
                high,
                mask(value_high),
                jump(libc::BPF_JEQ, wanted_high, 0, 4),
                low,
                mask(value_low),
                jump(libc::BPF_JEQ, wanted_low, 0, 1),
            ]
        }
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn mask(bits: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits, 0, 0)
}

fn give(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

/// `then` and `otherwise` are how many of the following instructions to pass over.
fn jump(condition: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(
        libc::BPF_JMP | condition | libc::BPF_K,
        value,
        then,
        otherwise,
    )
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests;
