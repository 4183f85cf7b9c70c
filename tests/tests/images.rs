//! The images as a runtime finds them: one static program each, started by a user that is nobody, and the same bytes from the same sources.
//!
//! The sidecar's is built twice, unoptimized: from this tree, and from a copy of it under another path. The controller's is made by the same script, of
//! many more crates.

use std::fs;
use std::path::Path;
use std::process::Command;

use ringside_tests::processes::{Process, find, installed};
use ringside_tests::skip::{build_folder, skip};
use ringside_tests::{await_some, http};
use serde_json::Value;

const NAME: &str = "ringside";

/// Builds the image from `tree`, compiled in `folder`, and opens it.
fn build(tree: &Path, folder: &Path) -> Image {
    let images = tempfile::tempdir().expect("a folder");
    let output = Command::new(tree.join("images/build"))
        .arg(NAME)
        .env("IMAGES", images.path())
        .env("IMAGES_BUILD", folder)
        .env("IMAGES_PROFILE", "dev")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Those of the build of the tests are not for another target.
        .env_remove("RUSTFLAGS")
        .output()
        .expect("images/build runs");
    assert!(
        output.status.success(),
        "images/build: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Image::open(&images.path().join(format!("{NAME}.tar")))
}

/// A copy of the sources, changed or not, that belongs to the same repository.
fn copied(root: &Path, to: &Path) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(arguments)
            .output();
        let output = output.expect("git runs");
        assert!(output.status.success(), "git {arguments:?} fails");
        String::from_utf8(output.stdout).expect("a path is text")
    };
    let files = git(&[
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    for file in files.split_terminator('\0') {
        // Deleted, and not committed so.
        if let Ok(metadata) = fs::metadata(root.join(file)) {
            let copy = to.join(file);
            fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
            fs::copy(root.join(file), &copy).expect("a copy");
            fs::set_permissions(&copy, metadata.permissions()).expect("its mode");
        }
    }
    let repository = git(&["rev-parse", "--absolute-git-dir"]);
    fs::write(to.join(".git"), format!("gitdir: {}", repository.trim())).expect("a file");
}

/// What is in an archive, unpacked.
struct Image {
    folder: tempfile::TempDir,
    digest: String,
}

impl Image {
    fn open(archive: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        unpack(archive, folder.path());
        let mut image = Self {
            folder,
            digest: String::new(),
        };
        let index: Value = image.json("index.json");
        image.digest = text(&index["manifests"][0]["digest"]);
        image
    }

    fn json(&self, path: &str) -> Value {
        let bytes = fs::read(self.folder.path().join(path)).expect("a file of the archive");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    fn blob(digest: &str) -> String {
        format!("blobs/{}", digest.replace(':', "/"))
    }
}

fn unpack(archive: &Path, to: &Path) {
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(to)
        .status();
    assert!(
        unpacked.expect("tar runs").success(),
        "{}",
        archive.display()
    );
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

/// What a runtime reads of it, and does with it.
fn judge(image: &Image, name: &str) {
    let manifest = image.json(&Image::blob(&image.digest));
    let config = image.json(&Image::blob(&text(&manifest["config"]["digest"])));
    let settings = &config["config"];
    assert_eq!(settings["User"], "65532:65532", "{name}: nobody's user");
    assert_eq!(settings["Entrypoint"][0], format!("/usr/bin/{name}"));
    let labels = &settings["Labels"];
    for label in [
        "title",
        "description",
        "version",
        "revision",
        "created",
        "licenses",
    ] {
        let label = format!("org.opencontainers.image.{label}");
        assert!(
            labels[&label].is_string(),
            "{name}: no label {label} in {labels}"
        );
    }
    assert_eq!(
        labels["org.opencontainers.image.version"],
        env!("CARGO_PKG_VERSION")
    );
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1, "{name}: one layer");
    let root = tempfile::tempdir().expect("a folder");
    let layer = image
        .folder
        .path()
        .join(Image::blob(&text(&layers[0]["digest"])));
    unpack(&layer, root.path());
    let program = root.path().join("usr/bin").join(name);
    // Without a loader it needs nothing of the image.
    let said = Command::new(find("chroot").expect("coreutils"))
        .args(["--userspec=65532:65532"])
        .arg(root.path())
        .args([&format!("/usr/bin/{name}"), "--version"])
        .output()
        .expect("chroot runs");
    assert!(
        said.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    serves_what_it_is_asked_for_in_vain(&program);
    // The path that it was compiled at is nobody's business, and would make it another program elsewhere.
    let told = Command::new("grep")
        .args(["--quiet", "--fixed-strings"])
        .arg(project())
        .arg(&program)
        .status();
    assert_eq!(
        told.expect("grep runs").code(),
        Some(1),
        "{name} tells where it was compiled"
    );
}

/// The image has no tokio-uring: a pod that asks for it is served by another backend, and its status says why.
fn serves_what_it_is_asked_for_in_vain(program: &Path) {
    let relay = Process::start("the image's program", |folder| {
        let mut command = Command::new(program);
        command
            .args(["relay", "--relay", "web=127.0.0.1:0:127.0.0.1:9"])
            .args(["--backend", "tokio-uring", "--workers", "1"])
            .args(["--admin", "127.0.0.1:0", "--admin-port-file"])
            .arg(folder.join("admin"));
        command
    });
    let admin = await_some("the relay to start", || {
        let text = fs::read_to_string(relay.folder().join("admin")).ok()?;
        text.trim().parse().ok()
    });
    let status = await_some("its status", || {
        let answer = http::get(admin, "/statusz").ok()?;
        serde_json::from_str::<Value>(&answer.body).ok()
    });
    let worker = &status["workers"][0];
    assert!(
        worker["backend"] == "ring" || worker["backend"] == "epoll",
        "{worker}"
    );
    let reason = text(&worker["reason"]);
    assert!(
        reason.contains("tokio-uring is not in this program"),
        "{reason}"
    );
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the project")
}

#[test]
fn the_same_sources_give_the_same_image_of_one_static_program() {
    let test = "the_same_sources_give_the_same_image_of_one_static_program";
    if !installed(test, &["musl-gcc", "git"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        skip(
            test,
            "only root can start a program in the image's own root",
        );
        return;
    }
    let copy = tempfile::tempdir().expect("a folder");
    copied(project(), copy.path());
    // The first one's folder is kept for the next time; the other is what a stranger has.
    let first = build(project(), &build_folder().with_file_name("images-test"));
    let second = build(copy.path(), &copy.path().join("target"));
    judge(&first, NAME);
    assert_eq!(
        first.digest, second.digest,
        "a copy of the sources gives another image"
    );
}
