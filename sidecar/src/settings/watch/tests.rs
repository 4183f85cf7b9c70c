use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::settings::file::load;

/// Longer than any look takes, even without an observer, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn text(port: u16) -> String {
    format!("relays: [{{name: web, listen: '127.0.0.1:0', target: 'app:{port}'}}]\n")
}

fn port(change: Change) -> u16 {
    match &change.unwrap().relays[0].target {
        ringside_api::Target::Host { port, .. } => *port,
        other => panic!("{other} is not what these tests write"),
    }
}

/// A folder with a watched file that leads to port 1.
struct Scene {
    // Dropped first: the end of the folder is no change to be told, and nobody would hear it.
    watch: Watch,
    changes: Receiver<Change>,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::with(|folder| fs::write(folder.join("relay.yaml"), text(1)).unwrap())
    }

    /// `lay` puts relay.yaml into the folder.
    fn with(lay: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        lay(folder.path());
        let path = folder.path().join("relay.yaml");
        let (tell, changes) = mpsc::channel();
        let watch = Watch::start(&path, &load(&path).unwrap(), move |change| {
            tell.send(change).unwrap();
        })
        .unwrap();
        Self {
            changes,
            watch,
            folder,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn next(&self) -> Change {
        self.changes
            .recv_timeout(PATIENCE)
            .expect("a change is told")
    }

    /// The next change that is no error: a look may fall between two steps of a replacement.
    fn next_good(&self) -> u16 {
        loop {
            let change = self.next();
            if change.is_ok() {
                return port(change);
            }
        }
    }
}

#[test]
fn written_in_place() {
    let scene = Scene::new();
    for wanted in 2..5 {
        fs::write(scene.at("relay.yaml"), text(wanted)).unwrap();
        assert_eq!(scene.next_good(), wanted);
    }
}

#[test]
fn renamed_over_as_editors_do() {
    let scene = Scene::new();
    for wanted in 2..5 {
        fs::write(scene.at(".relay.yaml.swp"), text(wanted)).unwrap();
        fs::rename(scene.at(".relay.yaml.swp"), scene.at("relay.yaml")).unwrap();
        assert_eq!(port(scene.next()), wanted);
    }
}

#[test]
fn swapped_by_the_symlinks_of_a_mounted_config_map() {
    // As the kubelet lays it out: relay.yaml -> ..data/relay.yaml, ..data -> a folder with a date.
    let scene = Scene::with(|folder| {
        fs::create_dir(folder.join("..1")).unwrap();
        fs::write(folder.join("..1/relay.yaml"), text(1)).unwrap();
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/relay.yaml", folder.join("relay.yaml")).unwrap();
    });
    for wanted in 2..6 {
        let dated = format!("..{wanted}");
        fs::create_dir(scene.at(&dated)).unwrap();
        fs::write(scene.at(&dated).join("relay.yaml"), text(wanted)).unwrap();
        symlink(&dated, scene.at("..data_tmp")).unwrap();
        fs::rename(scene.at("..data_tmp"), scene.at("..data")).unwrap();
        fs::remove_dir_all(scene.at(&format!("..{}", wanted - 1))).unwrap();
        assert_eq!(port(scene.next()), wanted);
    }
}

#[test]
fn written_behind_a_symlink_into_another_folder() {
    let elsewhere = tempfile::tempdir().unwrap();
    let real = elsewhere.path().join("real.yaml");
    fs::write(&real, text(1)).unwrap();
    let scene = Scene::with(|folder| symlink(&real, folder.join("relay.yaml")).unwrap());
    // The first may be found by the look at the start; the others take an event from that folder.
    for wanted in 2..5 {
        fs::write(&real, text(wanted)).unwrap();
        assert_eq!(scene.next_good(), wanted);
    }
}

#[test]
fn truncated_and_then_rewritten() {
    let scene = Scene::new();
    fs::write(scene.at("relay.yaml"), "").unwrap();
    let refusal = scene.next().unwrap_err().to_string();
    assert!(refusal.contains("the document is empty"), "{refusal}");
    fs::write(scene.at("relay.yaml"), text(2)).unwrap();
    assert_eq!(scene.next_good(), 2);
}

#[test]
fn deleted_and_back() {
    let scene = Scene::new();
    fs::remove_file(scene.at("relay.yaml")).unwrap();
    assert!(matches!(scene.next(), Err(LoadError::Unreadable { .. })));
    // Back as it was: that the error is over is worth telling.
    fs::write(scene.at("other"), text(1)).unwrap();
    fs::rename(scene.at("other"), scene.at("relay.yaml")).unwrap();
    assert_eq!(port(scene.next()), 1);
}

#[test]
fn the_whole_folder_deleted_and_back() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("mounted");
    let path = folder.join("relay.yaml");
    fs::create_dir(&folder).unwrap();
    fs::write(&path, text(1)).unwrap();
    let (tell, changes) = mpsc::channel();
    let _watch = Watch::start(&path, &load(&path).unwrap(), move |change| {
        tell.send(change).unwrap();
    })
    .unwrap();
    // The watch is at work before the folder goes.
    fs::write(folder.join("other"), text(9)).unwrap();
    fs::rename(folder.join("other"), &path).unwrap();
    assert_eq!(port(changes.recv_timeout(PATIENCE).unwrap()), 9);
    fs::remove_dir_all(&folder).unwrap();
    assert!(changes.recv_timeout(PATIENCE).unwrap().is_err());
    fs::create_dir(&folder).unwrap();
    fs::write(&path, text(2)).unwrap();
    let found = std::iter::from_fn(|| changes.recv_timeout(PATIENCE).ok())
        .find_map(Result::ok)
        .unwrap();
    assert_eq!(port(Ok(found)), 2);
    // And the new folder is watched like the old one.
    for wanted in 3..6 {
        fs::write(folder.join("other"), text(wanted)).unwrap();
        fs::rename(folder.join("other"), &path).unwrap();
        assert_eq!(port(changes.recv_timeout(PATIENCE).unwrap()), wanted);
    }
}

#[test]
fn unreadable_and_readable_again() {
    let scene = Scene::new();
    // A symlink to itself cannot be read by anybody, also not by root, for whom permissions do not count.
    symlink("loop", scene.at("loop")).unwrap();
    fs::rename(scene.at("loop"), scene.at("relay.yaml")).unwrap();
    assert!(matches!(scene.next(), Err(LoadError::Unreadable { .. })));
    fs::write(scene.at("other"), text(2)).unwrap();
    fs::rename(scene.at("other"), scene.at("relay.yaml")).unwrap();
    assert_eq!(scene.next_good(), 2);
}

#[test]
fn ten_megabytes_are_refused_and_the_next_one_is_taken() {
    let scene = Scene::new();
    fs::write(scene.at("large"), vec![b'#'; 10 << 20]).unwrap();
    fs::rename(scene.at("large"), scene.at("relay.yaml")).unwrap();
    assert!(matches!(scene.next(), Err(LoadError::TooLarge { .. })));
    fs::write(scene.at("relay.yaml"), text(2)).unwrap();
    assert_eq!(scene.next_good(), 2);
}

#[test]
fn a_refusal_names_line_and_field() {
    let scene = Scene::new();
    fs::write(
        scene.at("other"),
        format!("{}settings:\n  backof: {{}}\n", text(1)),
    )
    .unwrap();
    fs::rename(scene.at("other"), scene.at("relay.yaml")).unwrap();
    let refusal = scene.next().unwrap_err();
    assert_eq!(
        (
            refusal.problems()[0].line,
            refusal.problems()[0].field.as_str()
        ),
        (Some(3), "settings.backof")
    );
}

#[test]
fn what_changed_between_loading_and_watching_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.yaml");
    fs::write(&path, text(1)).unwrap();
    let loaded = load(&path).unwrap();
    fs::write(&path, text(2)).unwrap();
    let (tell, changes) = mpsc::channel();
    let _watch = Watch::start(&path, &loaded, move |change| tell.send(change).unwrap()).unwrap();
    assert_eq!(port(changes.recv_timeout(PATIENCE).unwrap()), 2);
}

#[test]
fn without_the_kernels_help_it_is_looked_at_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.yaml");
    fs::write(&path, text(1)).unwrap();
    let (tell, changes) = mpsc::channel();
    let (messages, inbox) = mpsc::channel();
    let on_change = move |change| tell.send(change).unwrap();
    let _watch = Watch::start_with(
        &path,
        &load(&path).unwrap(),
        on_change,
        messages,
        inbox,
        None,
    )
    .unwrap();
    fs::write(folder.path().join("other"), text(2)).unwrap();
    fs::rename(folder.path().join("other"), &path).unwrap();
    assert_eq!(port(changes.recv_timeout(PATIENCE).unwrap()), 2);
}

#[test]
fn the_same_contents_and_the_same_failure_are_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.yaml");
    let mut told = Vec::new();
    let mut look = Look {
        path: path.clone(),
        seen: Ok(text(1)),
        on_change: |change: Change| told.push(change.is_ok()),
    };
    let mut after = |step: &dyn Fn()| {
        step();
        look.now();
        look.now();
    };
    after(&|| fs::write(&path, text(1)).unwrap());
    after(&|| fs::write(&path, text(2)).unwrap());
    after(&|| fs::write(&path, text(2)).unwrap());
    after(&|| fs::remove_file(&path).unwrap());
    after(&|| fs::write(&path, "relays: 5").unwrap());
    after(&|| fs::write(&path, text(2)).unwrap());
    assert_eq!(told, [true, false, false, true]);
}

#[test]
fn reading_the_file_is_not_taken_for_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.yaml");
    fs::write(&path, text(1)).unwrap();
    let (messages, inbox) = mpsc::channel();
    let mut folders = Folders {
        observer: observer(messages),
        watched: BTreeSet::new(),
    };
    assert!(folders.follow(&path));
    for _ in 0..200 {
        assert!(folders.follow(&path));
        read(&path).unwrap();
    }
    // Events keep their order, so this one comes after all that reading made.
    fs::rename(&path, folder.path().join("marker")).unwrap();
    inbox.recv_timeout(PATIENCE).unwrap();
    drop(folders);
    assert!(
        inbox.iter().count() < 10,
        "renaming makes a few events, reading would have made hundreds"
    );
}

#[test]
fn dropping_it_ends_the_thread() {
    let Scene {
        watch,
        changes,
        folder,
    } = Scene::new();
    drop(watch);
    fs::write(folder.path().join("relay.yaml"), text(2)).unwrap();
    // The callback, and with it the sending end, is gone.
    assert_eq!(changes.recv().err(), Some(mpsc::RecvError));
}
