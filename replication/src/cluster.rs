//! The cluster key: the one secret that every member of a cluster holds, and the root of all others.
//!
//! Nothing is encrypted or signed with the key itself. Each use derives its own secret for a named
//! purpose ([`ClusterKey::derive`]), so that one derived secret tells nothing about another, and a
//! purpose can be replaced by raising the number at the end of its name.
//!
//! While a key is being replaced, members accept several: the file has one a line, of which the first is the one in
//! use, for signing and for certificates. The steps, each taken at every member before the next begins:
//!
//! 1. [`ClusterKey::with_next`]: a new key is accepted, and not used yet;
//! 2. [`ClusterKey::with_next_used`]: it is used, and the old one still accepted;
//! 3. [`ClusterKey::without_old`]: the old one is not accepted any more.
//!
//! Some secrets must not change, since what is in the database was made with them (the MACs under which names are
//! claimed). They come from the first key that the cluster ever had ([`ClusterKey::derive_lasting`]), which every
//! later key carries with it. The file, not the database, is where it is kept: a member needs it before it has any
//! rows, and whoever may read the file may know it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hkdf::{HKDF_SHA256, Salt};

/// What the text of a cluster's first key starts with; the number is the version of the format.
const PREFIX: &str = "mychat-cluster-key-1:";
/// What the text of a later key starts with, which carries the first one.
const PREFIX_LATER: &str = "mychat-cluster-key-2:";
/// Separates our derivations from any other use of the same bytes.
const SALT: &[u8] = b"mychat cluster key";
/// A key file has a few short lines; this bounds what is read when the wrong file is named.
const LONGEST_FILE: u64 = 4096;
/// Keys that may be accepted at once.
const MOST_KEYS: usize = 4;

type Secret = [u8; 32];

/// The secret that makes its holder a member of one cluster: 32 random bytes, and while it is being replaced, those of
/// the other keys that are accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    /// The one in use first; never empty.
    accepted: Vec<Secret>,
    founding: Secret,
}

/// Why a cluster key could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ClusterKeyError {
    /// The file could not be read.
    #[error("cannot read the cluster key file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no text at all.
    #[error("the cluster key is empty; make one with `mychat cluster key`")]
    Empty,
    /// The text does not begin as a cluster key does.
    #[error("this is not a cluster key: it must begin with `{PREFIX}`")]
    Prefix,
    /// What follows the prefix is not base64url.
    #[error("the cluster key is damaged: what follows `{PREFIX}` is not base64url")]
    Encoding,
    /// The key has the wrong number of bytes.
    #[error("the cluster key is damaged: it has {0} bytes, not 32")]
    Length(usize),
    /// The keys are not of one cluster.
    #[error(
        "the keys belong to different clusters; a cluster's next key is made with `mychat cluster key --rotate`"
    )]
    Strangers,
    /// A key is there twice.
    #[error("the same key is there twice")]
    Twice,
    /// There are more keys than can be accepted at once.
    #[error("there are {0} keys, and at most {MOST_KEYS} can be accepted at once")]
    TooMany(usize),
}

/// Why a step of a rotation cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// A rotation is under way.
    #[error("a rotation is under way: its next steps are to use the new key, and to drop the old one")]
    UnderWay,
    /// There is no second key.
    #[error("there is one key only: a rotation begins with making the next one")]
    NotBegun,
}

impl ClusterKey {
    /// A fresh key from the system's random generator.
    pub fn generate() -> Self {
        Self::first(rand::random())
    }

    fn first(secret: Secret) -> Self {
        Self { accepted: vec![secret], founding: secret }
    }

    /// Reads the text that [`ClusterKey::to_text`] wrote: one key a line. White space around them, empty lines and
    /// lines that begin with `#` are ignored.
    pub fn parse(text: &str) -> Result<Self, ClusterKeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<(Secret, Secret)> = lines.map(parse_line).collect::<Result<_, _>>()?;
        let founding = keys.first().ok_or(ClusterKeyError::Empty)?.1;
        let accepted: Vec<Secret> = keys.iter().map(|(secret, _)| *secret).collect();
        if keys.iter().any(|key| key.1 != founding) {
            return Err(ClusterKeyError::Strangers);
        }
        if (1..accepted.len()).any(|at| accepted[..at].contains(&accepted[at])) {
            return Err(ClusterKeyError::Twice);
        }
        if accepted.len() > MOST_KEYS {
            return Err(ClusterKeyError::TooMany(accepted.len()));
        }
        Ok(Self { accepted, founding })
    }

    /// Reads the keys from a file.
    pub fn read(path: &Path) -> Result<Self, ClusterKeyError> {
        let text =
            read_short(path).map_err(|source| ClusterKeyError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// The keys as text, one a line, without a line end after the last. This is the secret itself.
    pub fn to_text(&self) -> String {
        let line = |secret: &Secret| match *secret == self.founding {
            true => format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret)),
            false => format!("{PREFIX_LATER}{}", URL_SAFE_NO_PAD.encode([*secret, self.founding].concat())),
        };
        self.accepted.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The secret of the key in use for one purpose, by HKDF-SHA256; the same key and purpose always give the same.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        derive(&self.accepted[0], purpose)
    }

    /// The secrets of all keys that are accepted for one purpose; first that of the key in use.
    pub fn derive_accepted(&self, purpose: &str) -> Vec<[u8; 32]> {
        self.accepted.iter().map(|secret| derive(secret, purpose)).collect()
    }

    /// A secret that stays the same when the key is replaced. For what is stored only: replacing the key does not take
    /// it from those who had the old one.
    pub fn derive_lasting(&self, purpose: &str) -> [u8; 32] {
        derive(&self.founding, purpose)
    }

    /// Names for the keys, first the one in use, which tell nothing of them: to see whether members have the same.
    pub fn marks(&self) -> Vec<String> {
        let mark = |secret: Secret| secret[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        self.derive_accepted("mark/1").into_iter().map(mark).collect()
    }

    /// Whether the other one is of the same cluster, before or after rotations.
    pub fn is_of_same_cluster(&self, other: &Self) -> bool {
        self.founding == other.founding
    }

    /// The first step of a rotation: a new key, accepted and not used yet.
    pub fn with_next(&self) -> Result<Self, RotationError> {
        match self.accepted[..] {
            [current] => Ok(Self { accepted: vec![current, rand::random()], founding: self.founding }),
            _ => Err(RotationError::UnderWay),
        }
    }

    /// The second step: the other key is used, and the one used so far is still accepted.
    pub fn with_next_used(&self) -> Result<Self, RotationError> {
        if self.accepted.len() < 2 {
            return Err(RotationError::NotBegun);
        }
        let mut accepted = self.accepted.clone();
        accepted.rotate_right(1);
        Ok(Self { accepted, founding: self.founding })
    }

    /// The last step: only the key in use is accepted.
    pub fn without_old(&self) -> Result<Self, RotationError> {
        match self.accepted[..] {
            [_] => Err(RotationError::NotBegun),
            _ => Ok(Self { accepted: vec![self.accepted[0]], founding: self.founding }),
        }
    }
}

/// A key and the first one of its cluster.
fn parse_line(line: &str) -> Result<(Secret, Secret), ClusterKeyError> {
    let (encoded, is_first) = match (line.strip_prefix(PREFIX), line.strip_prefix(PREFIX_LATER)) {
        (Some(encoded), _) => (encoded, true),
        (None, Some(encoded)) => (encoded, false),
        (None, None) => return Err(ClusterKeyError::Prefix),
    };
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| ClusterKeyError::Encoding)?;
    let length = || ClusterKeyError::Length(bytes.len());
    let (secret, rest) = bytes.split_first_chunk::<32>().ok_or_else(length)?;
    let founding = if is_first { &secret[..] } else { rest };
    match founding.try_into() {
        Ok(founding) if !is_first || rest.is_empty() => Ok((*secret, founding)),
        _ => Err(length()),
    }
}

fn derive(secret: &Secret, purpose: &str) -> [u8; 32] {
    let info = [purpose.as_bytes()];
    let mut derived = [0; 32];
    Salt::new(HKDF_SHA256, SALT)
        .extract(secret)
        .expand(&info, HKDF_SHA256)
        .and_then(|output| output.fill(&mut derived))
        .expect("HKDF-SHA256 gives up to 8160 bytes and a buffer of its own output's length is filled");
    derived
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

fn read_short(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text() {
        let key = ClusterKey::generate();
        let read = ClusterKey::parse(&format!("{}\n", key.to_text())).unwrap();
        assert_eq!(read, key);
    }

    #[test]
    fn each_kind_of_damage_has_its_own_error() {
        let text = ClusterKey::generate().to_text();
        let error = |text: &str| ClusterKey::parse(text).unwrap_err();
        assert!(matches!(error(" \n"), ClusterKeyError::Empty));
        assert!(matches!(error("ssh-ed25519 AAAA"), ClusterKeyError::Prefix));
        assert!(matches!(error(&format!("{text}!")), ClusterKeyError::Encoding));
        assert!(matches!(error(&format!("{PREFIX}AAAA")), ClusterKeyError::Length(3)));
    }

    #[test]
    fn a_rotation_goes_in_three_steps_and_keeps_what_lasts() {
        let old = ClusterKey::generate();
        let both = old.with_next().unwrap();
        assert_eq!(both.derive("jwt/1"), old.derive("jwt/1"), "the new one is not used yet");
        let used = both.with_next_used().unwrap();
        assert_eq!(used.derive_accepted("jwt/1")[1], old.derive("jwt/1"), "the old one is still accepted");
        let new = used.without_old().unwrap();
        assert_eq!(new.derive_accepted("jwt/1"), [used.derive("jwt/1")]);
        let later = new.with_next().unwrap().with_next_used().unwrap().without_old().unwrap();
        for key in [&both, &used, &new, &later] {
            assert_eq!(key.derive_lasting("claims/1"), old.derive("claims/1"));
            assert_eq!(ClusterKey::parse(&format!("# ours\n\n{}\n", key.to_text())).unwrap(), *key);
            assert!(key.is_of_same_cluster(&old));
        }
        assert_eq!(both.with_next().unwrap_err(), RotationError::UnderWay);
        assert_eq!(old.with_next_used().unwrap_err(), RotationError::NotBegun);
        assert_eq!(new.without_old().unwrap_err(), RotationError::NotBegun);
        assert_eq!((both.marks().len(), &used.marks()[0]), (2, &both.marks()[1]));
    }

    #[test]
    fn keys_of_different_clusters_in_one_file_are_refused() {
        let (one, other) = (ClusterKey::generate().to_text(), ClusterKey::generate().to_text());
        let error = |text: String| ClusterKey::parse(&text).unwrap_err();
        assert!(matches!(error(format!("{one}\n{other}")), ClusterKeyError::Strangers));
        assert!(matches!(error(format!("{one}\n{one}")), ClusterKeyError::Twice));
        assert!(matches!(error(format!("{one}\nnonsense")), ClusterKeyError::Prefix));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = ClusterKey::read(Path::new("/nonexistent/cluster.key")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/cluster.key"), "{error}");
    }

    #[test]
    fn purposes_and_keys_give_unrelated_secrets() {
        let key = ClusterKey::generate();
        assert_eq!(key.derive("mesh-ca/1"), key.clone().derive("mesh-ca/1"));
        assert_ne!(key.derive("mesh-ca/1"), key.derive("jwt/1"));
        assert_ne!(key.derive("mesh-ca/1"), ClusterKey::generate().derive("mesh-ca/1"));
        assert_ne!(key.derive("mesh-ca/1"), key.accepted[0]);
    }

    /// A change here would lock every running cluster out of its own secrets.
    #[test]
    fn the_derivation_is_fixed() {
        let secret = ClusterKey::first([7; 32]).derive("mesh-ca/1");
        assert_eq!(URL_SAFE_NO_PAD.encode(secret), "xPPfAKEyjYytr6M9D15MKVBzXL9r01XsC2kIm5p5k68");
    }

    #[test]
    fn debug_output_holds_no_secret() {
        assert_eq!(format!("{:?}", ClusterKey::first([7; 32])), "ClusterKey(secret)");
    }
}
