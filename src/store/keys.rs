//! The keys that secrets in the store are encrypted with: AES-256-GCM, each value by itself, tied to
//! the subscriber and the field that it belongs to.
//!
//! The key file holds one key, or two while they are rotated: 32 bytes in base64, a line each. The
//! first encrypts; both are accepted.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac, rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The bytes of a key.
const KEY_BYTES: usize = 32;
/// How many keys a file may hold.
const MOST_KEYS: usize = 2;

/// What is wrong with the key file. Says nothing of what is in it.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It is not there, and must not be made.
    #[error(
        "`store.secret_key_file` names {}, which does not exist: copy it from where the store was \
         used before, or make one for a new store, such as `openssl rand -base64 32` prints", .0.display()
    )]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("`store.secret_key_file`: cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It cannot be made.
    #[error("`store.secret_key_file`: cannot make {}: {error}", .path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It does not hold keys.
    #[error(
        "`store.secret_key_file`: {} must hold one key, or two while they are rotated: 32 bytes in \
         base64, a line each", .0.display()
    )]
    Content(PathBuf),
    /// No random bytes could be had.
    #[error("no random bytes could be had for a key")]
    Random,
}

/// Why a value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum SealError {
    /// With none of the keys.
    #[error("it is encrypted with a key that `store.secret_key_file` does not hold")]
    OtherKey,
    /// It is not what was written.
    #[error("it is damaged, or belongs elsewhere")]
    Damaged,
    /// It could not be encrypted.
    #[error("it could not be encrypted")]
    Sealing,
}

/// The keys, the one that encrypts first.
pub(super) struct Keyring(Vec<Key>);

struct Key {
    /// Tells the keys apart, and nothing else about them.
    id: String,
    cipher: RandomizedNonceKey,
    /// For what must be found again without being told.
    mac: hmac::Key,
}

impl Keyring {
    /// Reads the key file. Where there is none, `make` has one made, for its owner alone.
    pub(super) fn read(path: &Path, make: bool) -> Result<Self, KeyError> {
        let read = || fs::read_to_string(path).map(Zeroizing::new);
        let text = match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                make_file(path)?;
                read()
            }
            read => read,
        };
        let text = text.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
            _ => KeyError::Read {
                path: path.to_owned(),
                error,
            },
        })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<Key>> = lines.map(Key::new).collect();
        match keys {
            Some(keys) if (1..=MOST_KEYS).contains(&keys.len()) => Ok(Self(keys)),
            _ => Err(KeyError::Content(path.to_owned())),
        }
    }

    /// Which key encrypts.
    pub(super) fn id(&self) -> &str {
        self.0.first().map_or("", |key| &key.id)
    }

    /// Encrypts a value of a subscriber's field.
    pub(super) fn seal(
        &self,
        subscriber: &str,
        field: &str,
        secret: &SecretString,
    ) -> Result<String, SealError> {
        let key = self.0.first().ok_or(SealError::Sealing)?;
        let mut text = secret.expose_secret().as_bytes().to_vec();
        let nonce = key
            .cipher
            .seal_in_place_append_tag(belongs_to(subscriber, field), &mut text)
            .map_err(|_| SealError::Sealing)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok(BASE64_STANDARD.encode(sealed))
    }

    /// Decrypts what [`Self::seal`] gave, with the key of this id.
    pub(super) fn open(
        &self,
        key_id: &str,
        subscriber: &str,
        field: &str,
        sealed: &str,
    ) -> Result<SecretString, SealError> {
        let mut keys = self.0.iter();
        let key = keys
            .find(|key| key.id == key_id)
            .ok_or(SealError::OtherKey)?;
        let sealed = BASE64_STANDARD
            .decode(sealed)
            .map_err(|_| SealError::Damaged)?;
        let (nonce, sealed) = sealed
            .split_at_checked(NONCE_LEN)
            .ok_or(SealError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let opened = key
            .cipher
            .open_in_place(nonce, belongs_to(subscriber, field), &mut opened)
            .map_err(|_| SealError::Damaged)?;
        let text = std::str::from_utf8(opened).map_err(|_| SealError::Damaged)?;
        Ok(SecretString::from(text))
    }

    /// A hash of a secret by which an equal one is found, and nothing of it is told.
    pub(super) fn hash(&self, secret: &str) -> Vec<u8> {
        let key = self.0.first();
        key.map_or_else(Vec::new, |key| {
            hmac::sign(&key.mac, secret.as_bytes()).as_ref().to_vec()
        })
    }
}

impl Key {
    fn new(line: &str) -> Option<Self> {
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(line).ok()?);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        let derived = |purpose: &str| {
            let mut hash = Sha256::new();
            hash.update(purpose.as_bytes());
            hash.update(&*bytes);
            hash.finalize()
        };
        let id = derived("hookbridge key id");
        Some(Self {
            id: super::hex(&id[..4]),
            cipher: RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok()?,
            mac: hmac::Key::new(hmac::HMAC_SHA256, &derived("hookbridge url hash")),
        })
    }
}

/// A ciphertext that is moved to another subscriber or another field is of no use there.
fn belongs_to(subscriber: &str, field: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("{subscriber}\0{field}").into_bytes())
}

fn make_file(path: &Path) -> Result<(), KeyError> {
    let mut key = Zeroizing::new([0_u8; KEY_BYTES]);
    rand::fill(&mut *key).map_err(|_| KeyError::Random)?;
    let text = Zeroizing::new(BASE64_STANDARD.encode(*key) + "\n");
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    match written {
        // Another bridge was faster: its key is the one.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(KeyError::Make {
            path: path.to_owned(),
            error,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    const TWO: &str = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=";

    fn keyring(lines: &str) -> Result<Keyring, KeyError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, lines).unwrap();
        Keyring::read(&path, false)
    }

    #[test]
    fn a_rotated_key_still_opens_what_it_sealed_and_seals_nothing() {
        let secret = SecretString::from("Bearer s3cret");
        let old = keyring(ONE).unwrap();
        let sealed = old.seal("fixit", "authorization", &secret).unwrap();
        assert!(!sealed.contains("s3cret"));
        let both = keyring(&format!("{TWO}\n{ONE}\n")).unwrap();
        let opened = both.open(old.id(), "fixit", "authorization", &sealed);
        assert_eq!(opened.unwrap().expose_secret(), "Bearer s3cret");

        let anew = both.seal("fixit", "authorization", &secret).unwrap();
        assert_ne!(both.id(), old.id());
        let new = keyring(TWO).unwrap();
        let opened = new.open(both.id(), "fixit", "authorization", &anew);
        assert_eq!(opened.unwrap().expose_secret(), "Bearer s3cret");
        let opened = new.open(old.id(), "fixit", "authorization", &sealed);
        assert_eq!(opened.err(), Some(SealError::OtherKey));
    }

    #[test]
    fn a_sealed_value_opens_nowhere_but_where_it_belongs() {
        let keys = keyring(ONE).unwrap();
        let sealed = keys
            .seal("fixit", "authorization", &"secret".into())
            .unwrap();
        let moved = |subscriber, field| keys.open(keys.id(), subscriber, field, &sealed).err();
        assert_eq!(moved("fixit", "authorization"), None);
        assert_eq!(moved("other", "authorization"), Some(SealError::Damaged));
        assert_eq!(moved("fixit", "uri"), Some(SealError::Damaged));
        let again = keys
            .seal("fixit", "authorization", &"secret".into())
            .unwrap();
        assert_ne!(
            sealed, again,
            "the same secret twice does not look the same"
        );
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookbridge.key");
        let missing = Keyring::read(&path, false).err().unwrap();
        assert!(matches!(missing, KeyError::Missing(_)), "{missing}");
        let made = Keyring::read(&path, true).unwrap();
        assert_eq!(Keyring::read(&path, true).unwrap().id(), made.id());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let permissions = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(permissions & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_no_key_is_not_repeated() {
        for text in [
            "",
            "c2hvcnQ=",
            "not base64!",
            &format!("{ONE}\n{ONE}\n{ONE}"),
        ] {
            let error = keyring(text).err().unwrap().to_string();
            assert!(error.contains("32 bytes in base64"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }
}
