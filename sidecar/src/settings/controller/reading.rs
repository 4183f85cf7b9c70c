//! Small files that others write, read whole and bounded. It never waits, whatever a path turns out to be.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The text of `path`, of at most `most` bytes.
///
/// # Errors
/// It is not there, no regular file, too long, or no UTF-8 text.
pub(super) fn text(path: &Path, most: u64) -> io::Result<String> {
    // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_text_in_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(text(&path, 4).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "abcd").unwrap();
        assert_eq!(text(&path, 4).unwrap(), "abcd");
        assert!(text(&path, 3).unwrap_err().to_string().contains("larger"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(text(&path, 3).is_err());
        assert!(
            text(folder.path(), 3)
                .unwrap_err()
                .to_string()
                .contains("regular")
        );
        assert!(
            text(Path::new("/dev/zero"), 3)
                .unwrap_err()
                .to_string()
                .contains("regular")
        );
    }
}
