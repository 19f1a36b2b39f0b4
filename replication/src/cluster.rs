//! The cluster key: the one secret that every member of a cluster holds, and the root of all others.
//!
//! Nothing is encrypted or signed with the key itself. Each use derives its own secret for a named
//! purpose ([`ClusterKey::derive`]), so that one derived secret tells nothing about another, and a
//! purpose can be replaced by raising the number at the end of its name.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hkdf::{HKDF_SHA256, Salt};

/// What a key's text starts with; the number is the version of the format.
const PREFIX: &str = "mychat-cluster-key-1:";
/// Separates our derivations from any other use of the same bytes.
const SALT: &[u8] = b"mychat cluster key";
/// A key file is one short line; this bounds what is read when the wrong file is named.
const LONGEST_FILE: u64 = 4096;

/// The secret that makes its holder a member of one cluster: 32 random bytes.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

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
}

impl ClusterKey {
    /// A fresh key from the system's random generator.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Reads the text that [`ClusterKey::to_text`] wrote; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, ClusterKeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ClusterKeyError::Empty);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(ClusterKeyError::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| ClusterKeyError::Encoding)?;
        let length = bytes.len();
        bytes.try_into().map(Self).map_err(|_| ClusterKeyError::Length(length))
    }

    /// Reads a key from a file of one line.
    pub fn read(path: &Path) -> Result<Self, ClusterKeyError> {
        let text =
            read_short(path).map_err(|source| ClusterKeyError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// The key as one line of text without a line end. This is the secret itself.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// The secret for one purpose, by HKDF-SHA256; the same key and purpose always give the same.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let info = [purpose.as_bytes()];
        let mut secret = [0; 32];
        Salt::new(HKDF_SHA256, SALT)
            .extract(&self.0)
            .expand(&info, HKDF_SHA256)
            .and_then(|output| output.fill(&mut secret))
            .expect("HKDF-SHA256 gives up to 8160 bytes and a buffer of its own output's length is filled");
        secret
    }
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
        assert_eq!(read.0, key.0);
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
        assert_ne!(key.derive("mesh-ca/1"), key.0);
    }

    /// A change here would lock every running cluster out of its own secrets.
    #[test]
    fn the_derivation_is_fixed() {
        let secret = ClusterKey([7; 32]).derive("mesh-ca/1");
        assert_eq!(URL_SAFE_NO_PAD.encode(secret), "xPPfAKEyjYytr6M9D15MKVBzXL9r01XsC2kIm5p5k68");
    }

    #[test]
    fn debug_output_holds_no_secret() {
        assert_eq!(format!("{:?}", ClusterKey([7; 32])), "ClusterKey(secret)");
    }
}
