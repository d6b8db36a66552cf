//! What `deploy/` ships is sound: the settings and subscribers of the image, of the compose file, of
//! Kubernetes and of the Debian package, each with its secrets where it says that they are.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{alerts::project_file, support::certificates::Authority};

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

/// A folder with settings and subscribers, as they are when they are mounted somewhere: a path that
/// is named in them begins with one in here.
struct Mounted {
    folder: TempDir,
    /// Folders that the texts name, and which of ours stand for them.
    folders: Vec<(&'static str, PathBuf)>,
}

impl Mounted {
    fn new(folders: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("subscribers")).unwrap();
        let ours = |(index, named): (usize, &&'static str)| {
            let path = folder.path().join(format!("mounted-{index}"));
            fs::create_dir(&path).unwrap();
            (*named, path)
        };
        let folders = folders.iter().enumerate().map(ours).collect();
        Self { folder, folders }
    }

    /// Mounts a shipped file under a name of its own.
    fn file(&self, from: &str, to: &str) {
        let mut text = fs::read_to_string(shipped(from)).unwrap();
        for (named, path) in &self.folders {
            assert!(!named.ends_with('/'));
            text = text.replace(named, path.to_str().unwrap());
        }
        fs::write(self.folder.path().join(to), text).unwrap();
    }

    /// Puts the compose file's secrets into the folder that stands for `named`.
    fn secrets(&self, named: &str) {
        let (_, path) = self.folders.iter().find(|(n, _)| *n == named).unwrap();
        for entry in fs::read_dir(shipped("compose/secrets")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
        }
    }

    /// Puts a certificate into the folder that stands for `named`, as Kubernetes mounts one.
    fn certificate(&self, named: &str) {
        let (_, path) = self.folders.iter().find(|(n, _)| *n == named).unwrap();
        let pair = Authority::new().server("hookbridge.hookbridge.svc");
        fs::write(path.join("tls.crt"), pair.certificate).unwrap();
        fs::write(path.join("tls.key"), pair.key).unwrap();
    }

    /// What `hookbridge check` says of it.
    fn check(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_hookbridge"))
            .arg("check")
            .env(
                "HOOKBRIDGE_CONFIG",
                self.folder.path().join("hookbridge.toml"),
            )
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

/// What the Debian package has below the folder of its documents, by the list in `Cargo.toml`.
fn packed() -> BTreeSet<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = project_file("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array();
    let mut packed = BTreeSet::new();
    for asset in assets.unwrap() {
        let [from, to] = [0, 1].map(|part| Path::new(asset[part].as_str().unwrap()));
        let Ok(folder) = to.strip_prefix("usr/share/doc/hookbridge") else {
            continue;
        };
        if !asset[1].as_str().unwrap().ends_with('/') {
            packed.insert(folder.to_owned());
            continue;
        }
        let name = from.file_name().unwrap().to_str().unwrap();
        let Some(end) = name.strip_prefix('*') else {
            assert!(project.join(from).exists(), "{}", from.display());
            packed.insert(folder.join(name));
            continue;
        };
        let source = project.join(from.parent().unwrap());
        let names = fs::read_dir(source).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let before = packed.len();
        packed.extend(names.filter(|n| n.ends_with(end)).map(|n| folder.join(n)));
        assert!(packed.len() > before, "{}: there is none", from.display());
    }
    packed
}

#[test]
fn the_packages_documents_lead_to_what_the_package_has() {
    let packed = packed();
    let mut links = 0;
    for document in packed
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        let text = project_file(document.to_str().unwrap());
        for (at, _) in text.match_indices("](") {
            let rest = &text[at + 2..];
            let link = &rest[..rest.find([')', '#']).unwrap()];
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let mut path = document.parent().unwrap().to_owned();
            for part in Path::new(link) {
                if part == ".." {
                    assert!(path.pop(), "{}: {link}", document.display());
                } else {
                    path.push(part);
                }
            }
            let there = packed.iter().any(|packed| packed.starts_with(&path));
            assert!(there, "{} leads to {link}", document.display());
            links += 1;
        }
    }
    assert!(links > 30, "{links}");
}

#[test]
fn the_settings_of_the_image_and_of_the_package_are_sound() {
    for settings in ["docker/hookbridge.toml", "debian/hookbridge.toml"] {
        let mounted = Mounted::new(&["/var/lib/hookbridge", "/etc/hookbridge/subscribers"]);
        mounted.file(settings, "hookbridge.toml");
        let said = mounted.check();
        assert!(said.contains("ok: 0 subscribers"), "{settings}: {said}");
    }
}

#[test]
fn the_settings_and_subscribers_of_the_compose_file_are_sound() {
    let mounted = Mounted::new(&["/run/secrets"]);
    mounted.secrets("/run/secrets");
    mounted.file("compose/hookbridge.toml", "hookbridge.toml");
    for name in ["everything", "northwind", "fixit", "broken"] {
        let file = format!("subscribers/{name}.toml");
        mounted.file(&format!("compose/{file}"), &file);
    }
    let said = mounted.check();
    assert!(said.contains("ok: 4 subscribers (4 enabled)"), "{said}");
}

#[test]
fn the_settings_and_subscribers_of_kubernetes_are_sound() {
    for overlay in ["base", "overlays/single", "overlays/production"] {
        let mounted = Mounted::new(&[
            "/etc/hookbridge/secrets",
            "/etc/hookbridge/certificate",
            "/var/lib/hookbridge",
        ]);
        mounted.secrets("/etc/hookbridge/secrets");
        mounted.certificate("/etc/hookbridge/certificate");
        let settings = format!("kubernetes/{overlay}/hookbridge.toml");
        mounted.file(&settings, "hookbridge.toml");
        mounted.file(
            "kubernetes/base/subscribers/example.toml",
            "subscribers/example.toml",
        );
        mounted.file(
            "kubernetes/overlays/production/northwind.toml",
            "subscribers/northwind.toml",
        );
        // Keys of the secret that is mounted beside them.
        let subscribers = mounted.folder.path().join("subscribers");
        fs::write(subscribers.join("northwind.authorization"), "Bearer x").unwrap();
        let secret = shipped("compose/secrets/signing_secret");
        fs::copy(secret, subscribers.join("northwind.signing_secret")).unwrap();
        let said = mounted.check();
        assert!(
            said.contains("ok: 2 subscribers (1 enabled)"),
            "{overlay}: {said}"
        );
        let text = fs::read_to_string(shipped(&settings)).unwrap();
        let encrypted = text.contains("\ncertificate_file = ");
        assert_eq!(encrypted, overlay == "overlays/production", "{overlay}");
    }
}
