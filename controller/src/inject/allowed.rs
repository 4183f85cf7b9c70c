//! What may be said of a sidecar, whoever says it: a pod by its annotations, or all of them by flags. It owns the sentences for what may not.

use ringside_api::sentence::quoted;
use thiserror::Error;

use super::injection::{Injection, Resources};
use super::quantity::Quantity;

/// The longest image reference and log level that are taken, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Something that would keep every pod from starting, or from being made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the sidecars' {what}: {why}")]
pub struct NotAllowed {
    what: &'static str,
    why: String,
}

impl Injection {
    /// Whether pods could be made and started with it: flags are not as forgiving as annotations, since all pods would have it.
    ///
    /// # Errors
    /// For the first thing that is not allowed.
    pub fn check(&self) -> Result<(), NotAllowed> {
        let told = |what| move |why| NotAllowed { what, why };
        image(&self.image).map_err(told("image"))?;
        self.log_level
            .as_deref()
            .map_or(Ok(()), log_level)
            .map_err(told("log level"))?;
        let Resources {
            cpu_request,
            cpu_limit,
            memory_request,
            memory_limit,
        } = &self.resources;
        Amounts::CPU
            .check(cpu_request, cpu_limit)
            .map_err(told("CPU"))?;
        Amounts::MEMORY
            .check(memory_request, memory_limit)
            .map_err(told("memory"))
    }
}

/// Amounts of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amounts {
    /// As in an annotation's name.
    pub(super) kind: &'static str,
    least: (Quantity, &'static str),
    example: &'static str,
}

impl Amounts {
    pub(super) const CPU: Self = Self {
        kind: "cpu",
        least: (Quantity::MILLI, "1m"),
        example: "100m",
    };

    /// No container starts with less than its least.
    pub(super) const MEMORY: Self = Self {
        kind: "memory",
        least: (Quantity::mib(16), "16Mi"),
        example: "64Mi",
    };

    /// The amount, or why it is none.
    pub(super) fn read(&self, text: &str) -> Result<Quantity, String> {
        let (least, least_text) = self.least;
        match Quantity::read(text) {
            Some(quantity) if quantity >= least => Ok(quantity),
            Some(_) => Err(format!("{} is less than {least_text}", quoted(text))),
            None => {
                let (given, example) = (quoted(text), self.example);
                Err(format!("{given} is no amount: write one such as {example}"))
            }
        }
    }

    fn check(&self, request: &Option<String>, limit: &Option<String>) -> Result<(), String> {
        let read =
            |amount: &Option<String>| amount.as_deref().map(|text| self.read(text)).transpose();
        match (read(request)?, read(limit)?) {
            (Some(asked), Some(most)) if asked > most => {
                let (request, limit) = (request.as_deref(), limit.as_deref());
                Err(format!(
                    "the request, {}, is more than the limit, {}: ask for less, or raise the limit",
                    request.unwrap_or_default(),
                    limit.unwrap_or_default()
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Why this is no log level, or levels by module, as the sidecar reads them.
pub(super) fn log_level(text: &str) -> Result<(), String> {
    if is_log_level(text) {
        return Ok(());
    }
    Err(format!(
        "{} is no log level: write off, error, warn, info, debug or trace, or directives such as info,ringside::worker=debug",
        quoted(text)
    ))
}

/// Why this is no image.
pub(super) fn image(text: &str) -> Result<(), String> {
    if let Some((_, digest)) = text.split_once('@')
        && !is_digest(digest)
    {
        let why = "is no digest: write sha256: and 64 digits of 0-9 and a-f";
        return Err(format!("{} {why}", quoted(digest)));
    }
    if is_image(text) {
        return Ok(());
    }
    Err(format!("{} is no image reference", quoted(text)))
}

/// A level, or levels by module, as the sidecar reads them.
fn is_log_level(text: &str) -> bool {
    let is_level = |level: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|known| level.eq_ignore_ascii_case(known))
    };
    let is_module = |module: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
        !module.is_empty() && module.bytes().all(allowed)
    };
    text.len() <= TEXT_BYTES_MAX
        && text
            .split(',')
            .map(str::trim)
            .all(|directive| match directive.split_once('=') {
                None => is_level(directive),
                Some((module, level)) => is_module(module) && is_level(level),
            })
}

/// Whether a node could take this for an image: NAME[:TAG][@DIGEST], nothing but letters, digits and `._-/:@`.
fn is_image(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let (name, _) = text.split_once('@').unwrap_or((text, ""));
    // A registry's host may have capitals; the path behind it may not.
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    let path = path.rsplit_once(':').map_or(path, |(path, _)| path);
    text.len() <= TEXT_BYTES_MAX
        && text.bytes().all(allowed)
        && is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
        && !path.bytes().any(|byte| byte.is_ascii_uppercase())
        && !text.contains("//")
}

/// Whether this is the digest of an image, by one of the algorithms that container runtimes know.
fn is_digest(text: &str) -> bool {
    let (algorithm, hex) = text.split_once(':').unwrap_or((text, ""));
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == digits
        && hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_pod_could_start_with_is_told() {
        type Change = fn(&mut Injection);
        let given = |text: &str| Some(text.to_owned());
        assert_eq!(Injection::new("1", "r:1").check(), Ok(()));
        let cases: [(Change, &str); 7] = [
            (
                |it| it.image = "Ringside".to_owned(),
                "image: `Ringside` is no image",
            ),
            (
                |it| it.image = "r@sha256:1".to_owned(),
                "image: `sha256:1` is no digest",
            ),
            (
                |it| it.log_level = Some("loud".to_owned()),
                "log level: `loud`",
            ),
            (
                |it| it.resources.memory_limit = Some("lots".to_owned()),
                "memory: `lots` is no amount",
            ),
            (
                |it| it.resources.memory_limit = Some("1Mi".to_owned()),
                "memory: `1Mi` is less than 16Mi",
            ),
            (
                |it| it.resources.memory_request = Some("512Mi".to_owned()),
                "memory: the request, 512Mi, is more than the limit, 256Mi",
            ),
            (
                |it| it.resources.cpu_limit = Some("5m".to_owned()),
                "CPU: the request, 10m, is more than the limit, 5m",
            ),
        ];
        for (change, told) in cases {
            let mut injection = Injection::new("1", "r:1");
            change(&mut injection);
            let error = injection.check().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let mut injection = Injection::new("1", "r:1");
        injection.resources.memory_request = given("512Mi");
        injection.resources.memory_limit = None;
        assert_eq!(
            injection.check(),
            Ok(()),
            "without a limit any request will do"
        );
    }
}
