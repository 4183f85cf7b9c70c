//! How a configuration file is replaced under a running relay: by a rename, as editors and `mv` do, or by the swap of a
//! symlink, as the kubelet does with a mounted ConfigMap.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The configuration's name in its folder.
pub(crate) const FILE: &str = "config.yaml";

/// Replaces `config.yaml` in `folder` in one step. A reader sees the old text or the new one.
pub(crate) fn write(folder: &Path, mounted: bool, text: &str) {
    let written = if mounted {
        swap(folder, text)
    } else {
        rename(folder, text)
    };
    written.unwrap_or_else(|error| {
        panic!("the configuration in {folder:?} cannot be replaced: {error}")
    });
}

fn rename(folder: &Path, text: &str) -> io::Result<()> {
    let next = folder.join("next.yaml");
    fs::write(&next, text)?;
    fs::rename(next, folder.join(FILE))
}

/// `config.yaml -> ..data/config.yaml`, `..data -> ..VERSION`: only `..data` is ever replaced.
fn swap(folder: &Path, text: &str) -> io::Result<()> {
    let version = tempfile::Builder::new()
        .prefix("..version-")
        .tempdir_in(folder)?
        .keep();
    fs::write(version.join(FILE), text)?;
    let name = version
        .file_name()
        .ok_or_else(|| io::Error::other("a version has a name"))?;
    let old = fs::read_link(folder.join("..data"));
    symlink(name, folder.join("..data_tmp"))?;
    fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    match old {
        // The kubelet removes what nobody leads to any more.
        Ok(old) => fs::remove_dir_all(folder.join(old)),
        Err(_) => symlink(Path::new("..data").join(FILE), folder.join(FILE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replacement_is_read_through_the_same_path() {
        for mounted in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            for text in ["first", "second", "third", "fourth"] {
                write(folder.path(), mounted, text);
                assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), text);
            }
            assert_eq!(folder.path().join("..data").exists(), mounted);
        }
    }
}
