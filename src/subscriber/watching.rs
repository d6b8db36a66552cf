//! Notices that the subscribers' files changed, for places where nobody can send a signal: a
//! ConfigMap that is mounted, a volume that something else writes to.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// What the files of a directory look like from outside: enough to tell that one of them is
/// another than before, without reading any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look(Result<Vec<Seen>, io::ErrorKind>);

/// One file, as it is behind any links. A ConfigMap's change swaps the link `..data`, which all its
/// files are links through, so that each of them is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    name: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// When its content, its owner or its rights changed.
    changed: (i64, i64),
}

impl Look {
    /// Looks at the files in `directory`: subscribers, and secrets beside them. Hidden ones are
    /// left out, as they are when the subscribers are read.
    pub fn at(directory: &Path) -> Self {
        Self(seen(directory).map_err(|error| error.kind()))
    }
}

fn seen(directory: &Path) -> io::Result<Vec<Seen>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // What is gone meanwhile, or a link to nowhere, is not there.
        let Ok(metadata) = fs::metadata(entry.path()) else {
            continue;
        };
        files.push(Seen {
            name: entry.path(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
    }
    files.sort();
    Ok(files)
}

/// Looks at a directory at intervals.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    every: Option<Duration>,
    /// What was read, or was told to be.
    known: Look,
    /// What the last look showed.
    last: Look,
}

impl Watch {
    /// Watches `directory`, whose files looked like `read` before they were read; never sees a
    /// change if `every` is none.
    pub fn new(directory: PathBuf, every: Option<Duration>, read: Look) -> Self {
        Self {
            directory,
            every,
            last: read.clone(),
            known: read,
        }
    }

    /// Waits until the files are others than those known and have stayed so for one interval: who
    /// writes several, or a long one, is not interrupted. May be dropped and called again.
    pub async fn changed(&mut self) {
        let Some(every) = self.every else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            let directory = self.directory.clone();
            let look = tokio::task::spawn_blocking(move || Look::at(&directory)).await;
            let Ok(look) = look else { continue };
            let settled = look == self.last;
            self.last = look;
            if settled && self.last != self.known {
                self.known = self.last.clone();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const EVERY: Duration = Duration::from_millis(5);
    /// Several intervals.
    const LONG: Duration = Duration::from_millis(100);

    async fn sees_a_change(watch: &mut Watch) -> bool {
        timeout(Duration::from_secs(10), watch.changed())
            .await
            .is_ok()
    }

    async fn sees_none(watch: &mut Watch) -> bool {
        timeout(LONG, watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn every_kind_of_change_is_seen_once_and_a_hidden_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("one.toml"), "a").unwrap();
        let read = Look::at(folder.path());
        let mut watch = Watch::new(folder.path().to_owned(), Some(EVERY), read);
        assert!(sees_none(&mut watch).await);

        let changes: [(&str, &dyn Fn()); 5] = [
            ("another text", &|| {
                fs::write(path("one.toml"), "b").unwrap();
            }),
            ("a secret beside it", &|| {
                fs::write(path("token"), "secret").unwrap();
            }),
            ("another file under the name", &|| {
                fs::write(path(".new"), "c").unwrap();
                fs::rename(path(".new"), path("one.toml")).unwrap();
            }),
            ("one less", &|| fs::remove_file(path("one.toml")).unwrap()),
            ("the directory away", &|| {
                fs::remove_dir_all(folder.path()).unwrap();
            }),
        ];
        for (what, change) in changes {
            change();
            assert!(sees_a_change(&mut watch).await, "{what}");
            assert!(sees_none(&mut watch).await, "{what}, a second time");
        }
        fs::create_dir(folder.path()).unwrap();
        assert!(sees_a_change(&mut watch).await, "the directory back");
        fs::write(path(".one.toml.swp"), "an editor's").unwrap();
        assert!(sees_none(&mut watch).await, "a hidden file");
    }

    #[tokio::test]
    async fn a_swapped_link_above_the_files_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("one.toml"), "the same size").unwrap();
        }
        symlink("..1", path("..data")).unwrap();
        symlink("..data/one.toml", path("one.toml")).unwrap();
        let read = Look::at(folder.path());
        let mut watch = Watch::new(folder.path().to_owned(), Some(EVERY), read);
        assert!(sees_none(&mut watch).await);
        symlink("..2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert!(sees_a_change(&mut watch).await);
    }

    #[tokio::test]
    async fn what_was_changed_between_reading_and_watching_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let read = Look::at(folder.path());
        fs::write(folder.path().join("late.toml"), "").unwrap();
        let mut watch = Watch::new(folder.path().to_owned(), Some(EVERY), read);
        assert!(sees_a_change(&mut watch).await);
    }
}
