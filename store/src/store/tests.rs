use std::future::{pending, ready};
use std::sync::atomic::{AtomicUsize, Ordering};

use age::secrecy::ExposeSecret;

use super::*;
use crate::archive::tests::checkpoint;
use crate::parts::PART_SIZE;

/// A host with a checkpoint and a directory for stored ones.
struct Stage {
    root: tempfile::TempDir,
    settings: Settings,
    bytes: u64,
}

impl Stage {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let key = age::x25519::Identity::generate();
        let identity_file = root.path().join("identity");
        std::fs::write(&identity_file, key.to_string().expose_secret()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&identity_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings =
            Settings { recipients: vec![key.to_public().to_string()], identity_file, ..Settings::default() };
        // More than one part, however well it is packed.
        let pages = noise(2 * PART_SIZE + 77);
        let bytes =
            checkpoint(&root.path().join("from"), &[("core-1.img", b"core"), ("pages-1.img", &pages)]);
        Self { root, settings, bytes }
    }

    fn store(&self) -> Store {
        Store::open(&Place::Directory(self.root.path().join("place")), &self.settings).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    async fn push(&self, name: &str, encrypt: bool) -> Result<Pushed, StoreError> {
        let push = Push { container: "web".into(), name: Some(name.parse()?), encrypt };
        self.store().push(&self.path("from"), &push, pending()).await
    }

    async fn pull(&self, name: &str) -> Result<Pulled, StoreError> {
        let place = self.path("to");
        if place.exists() {
            std::fs::remove_dir_all(&place).unwrap();
        }
        self.store().pull(&name.parse()?, &place, pending()).await
    }

    fn is_back(&self) -> bool {
        let same = |name: &str| {
            std::fs::read(self.path("from").join(name)).unwrap()
                == std::fs::read(self.path("to").join(name)).unwrap()
        };
        same("core-1.img") && same("pages-1.img") && same("manifest.json")
    }

    /// The files of the place, deepest first.
    fn stored(&self) -> Vec<PathBuf> {
        fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                walk(&path, found);
                if path.is_file() {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path("place"), &mut found);
        found.sort();
        found
    }
}

/// What does not get smaller by packing.
fn noise(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_goes_and_comes_back_plain_and_encrypted() {
    let stage = Stage::new();
    for (name, encrypt) in [("plain", false), ("secret", true)] {
        let pushed = stage.push(name, encrypt).await.unwrap();
        assert_eq!((pushed.bytes, pushed.encrypted), (stage.bytes, encrypt));
        assert_eq!(pushed.location, format!("{}/{name}", stage.path("place").display()));
        stage.pull(name).await.unwrap();
        assert!(stage.is_back(), "{name}");
    }
    assert_eq!(
        stage.stored().iter().filter(|path| path.ends_with("00002")).count(),
        2,
        "{:?}",
        stage.stored()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn others_can_read_nothing() {
    use std::os::unix::fs::MetadataExt;
    let stage = Stage::new();
    stage.push("secret", true).await.unwrap();
    for path in stage.stored() {
        let content = std::fs::read(&path).unwrap();
        for word in ["redis", "--secret", "core-1.img"] {
            assert!(!content.windows(word.len()).any(|w| w == word.as_bytes()), "{word} in {path:?}");
        }
    }
    assert_eq!(std::fs::metadata(stage.path("place")).unwrap().mode() & 0o077, 0);
    let other = Stage::new();
    let mut settings = stage.settings.clone();
    settings.identity_file.clone_from(&other.settings.identity_file);
    let store = Store::open(&Place::Directory(stage.path("place")), &settings).unwrap();
    let error = store.pull(&"secret".parse().unwrap(), &stage.path("to"), pending()).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed { .. }), "{error}");
    assert!(!stage.path("to").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tampered_with_is_refused_and_leaves_nothing() {
    type Harm = fn(&Path);
    let change: Harm = |path| {
        let mut content = std::fs::read(path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        std::fs::write(path, content).unwrap();
    };
    let cut: Harm = |path| {
        let content = std::fs::read(path).unwrap();
        std::fs::write(path, &content[..content.len() - 1]).unwrap();
    };
    let grow: Harm = |path| {
        let content = std::fs::read(path).unwrap();
        std::fs::write(path, [content, vec![0; 9]].concat()).unwrap();
    };
    let remove: Harm = |path| std::fs::remove_file(path).unwrap();
    for harm in [change, cut, grow, remove] {
        for which in ["00000", "00002"] {
            let stage = Stage::new();
            stage.push("web", false).await.unwrap();
            let path = stage.stored().into_iter().find(|path| path.ends_with(which)).unwrap();
            harm(&path);
            let error = stage.pull("web").await.unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Failed { .. }), "{error}");
            let left: Vec<_> =
                std::fs::read_dir(stage.root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left.len(), 3, "{left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_whose_parts_were_swapped_is_refused() {
    let stage = Stage::new();
    stage.push("web", false).await.unwrap();
    let label = stage.stored().into_iter().find(|path| path.ends_with("label.json")).unwrap();
    let mut content: Label = serde_json::from_slice(&std::fs::read(&label).unwrap()).unwrap();
    content.parts.swap(0, 1);
    std::fs::write(&label, serde_json::to_vec(&content).unwrap()).unwrap();
    assert!(matches!(stage.pull("web").await.unwrap_err(), StoreError::Damaged { .. }));
    content.parts.swap(0, 1);
    content.parts.pop();
    content.stored = content.parts.iter().map(|part| part.size).sum();
    std::fs::write(&label, serde_json::to_vec(&content).unwrap()).unwrap();
    let error = stage.pull("web").await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(!stage.path("to").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_push_leaves_nothing() {
    let stage = Stage::new();
    let push = Push { container: "web".into(), name: None, encrypt: false };
    let error = stage.store().push(&stage.path("from"), &push, ready(())).await.unwrap_err();
    assert!(matches!(error, StoreError::Interrupted), "{error}");
    let seen = AtomicUsize::new(0);
    let late = async {
        while seen.fetch_add(1, Ordering::Relaxed) < 1000 && stage.stored().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let error = stage.store().push(&stage.path("from"), &push, late).await.unwrap_err();
    assert!(matches!(error, StoreError::Interrupted), "{error}");
    assert_eq!(stage.stored(), Vec::<PathBuf>::new());
    assert!(stage.store().list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_pull_leaves_nothing() {
    let stage = Stage::new();
    stage.push("web", false).await.unwrap();
    let store = stage.store();
    let error = store.pull(&"web".parse().unwrap(), &stage.path("to"), ready(())).await.unwrap_err();
    assert!(matches!(error, StoreError::Interrupted), "{error}");
    assert_eq!(std::fs::read_dir(stage.root.path()).unwrap().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_not_stored() {
    let stage = Stage::new();
    std::fs::write(stage.path("from").join("core-1.img"), "cose").unwrap();
    let error = stage.push("web", false).await.unwrap_err().report();
    assert!(error.contains("core-1.img"), "{error}");
    assert_eq!(stage.stored(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once() {
    let stage = Stage::new();
    stage.push("web", false).await.unwrap();
    let error = stage.push("web", true).await.unwrap_err();
    assert!(matches!(error, StoreError::Occupied { .. }), "{error}");
    stage.pull("web").await.unwrap();
    assert!(stage.is_back());
    assert!(matches!(stage.pull("other").await.unwrap_err(), StoreError::NotFound { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_youngest_stay() {
    let stage = Stage::new();
    for number in 1..=4 {
        // The names decide where the times are the same.
        stage.push(&format!("web-{number}"), false).await.unwrap();
    }
    let other = Push { container: "other".into(), name: Some("a".parse().unwrap()), encrypt: false };
    stage.store().push(&stage.path("from"), &other, pending()).await.unwrap();
    std::fs::write(stage.path("place").join("letters.txt"), "not ours").unwrap();
    let store = stage.store();
    assert_eq!(store.newest("web").await.unwrap().as_str(), "web-4");
    let gone = store.keep("web", 2).await.unwrap();
    assert_eq!(gone.iter().map(Name::as_str).collect::<Vec<_>>(), ["web-1", "web-2"]);
    let names: Vec<String> = store.list().await.unwrap().into_iter().map(|label| label.name.into()).collect();
    assert_eq!(names, ["a", "web-3", "web-4"]);
    store.delete(&"web-3".parse().unwrap()).await.unwrap();
    assert!(!stage.path("place").join("web-3").exists());
    assert!(matches!(store.newest("web-3").await.unwrap_err(), StoreError::NoneOf { .. }));
    assert!(stage.path("place").join("letters.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_pruned_and_nothing_else() {
    let stage = Stage::new();
    stage.push("web", false).await.unwrap();
    stage.push("half", false).await.unwrap();
    std::fs::remove_file(stage.path("place/half/label.json")).unwrap();
    let half = std::fs::read_dir(stage.path("place/half")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(half.join("00003#1"), "cut off").unwrap();
    let first = stage.path("place/first/fedcba9876543210");
    std::fs::create_dir_all(&first).unwrap();
    std::fs::write(first.join("00000#1"), "cut off in the first part").unwrap();
    std::fs::create_dir(stage.path("place/web/0123456789abcdef")).unwrap();
    std::fs::write(stage.path("place/web/0123456789abcdef/00000"), "of another push").unwrap();
    std::fs::write(stage.path("place/web/notes"), "not ours").unwrap();
    let store = stage.store();
    assert_eq!(store.list().await.unwrap().len(), 1);
    assert!(store.prune(Duration::from_secs(3600)).await.unwrap().is_empty());
    let gone = store.prune(Duration::ZERO).await.unwrap();
    assert_eq!(gone.iter().map(Name::as_str).collect::<Vec<_>>(), ["first", "half", "web"]);
    assert!(!stage.path("place/half").exists() && !stage.path("place/first").exists());
    assert!(stage.path("place/web/notes").exists());
    stage.pull("web").await.unwrap();
    assert!(stage.is_back());
}
