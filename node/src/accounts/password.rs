//! Passwords: argon2id, on blocking threads, never more at a time than the machine has cores.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use tokio::sync::Semaphore;

use crate::http::Problem;

/// Calls that wait for their turn to hash; a further one is told to come back.
const MAX_WAITING: usize = 256;

/// What a hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    kib: u32,
    passes: u32,
}

/// OWASP's recommendation for argon2id: 19 MiB, two passes, one lane.
impl Default for Cost {
    fn default() -> Self {
        Self { kib: 19 * 1024, passes: 2 }
    }
}

impl Cost {
    /// As cheap as the algorithm allows, so that tests spend their time on what they test.
    #[cfg(test)]
    pub(crate) const FOR_TESTS: Self = Self { kib: 8, passes: 1 };
}

/// A password on its way to being hashed. Its `Debug` does not show it.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Hashes and checks passwords. A handle; clones share the queue.
#[derive(Clone)]
pub struct Passwords {
    params: Params,
    memory: Memory,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// A hash that no password is checked against but to take the time: nobody can tell by the clock whether an
    /// address has an account.
    dummy: Arc<str>,
}

impl Passwords {
    /// A hasher.
    #[must_use]
    pub(crate) fn new(cost: Cost) -> Self {
        let params = Params::new(cost.kib, cost.passes, 1, None).unwrap_or_default();
        let memory = Memory::default();
        let nobody: [u8; 32] = rand::random();
        let dummy = memory.hash(&params, &nobody).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            params,
            memory,
            running: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            dummy: dummy.into(),
        }
    }

    /// The hash of a password, as a PHC string with a salt of its own.
    ///
    /// # Errors
    /// 429 when too many wait already.
    pub async fn hash(&self, password: Secret) -> Result<String, Problem> {
        let (params, memory) = (self.params.clone(), self.memory.clone());
        self.run(move || memory.hash(&params, password.bytes())).await?.map_err(|error| {
            tracing::error!(%error, "a password could not be hashed");
            Problem::unavailable("the password could not be hashed")
        })
    }

    /// Whether the password is the one of the hash; `None` is checked against nothing and takes as long.
    ///
    /// # Errors
    /// 429 when too many wait already.
    pub async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool, Problem> {
        let memory = self.memory.clone();
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.to_string());
        let right =
            self.run(move || memory.verify(&hash, password.bytes()).is_some_and(|right| right)).await?;
        Ok(right && known)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let busy = || Problem::rate_limited("too many sign-ins at the moment", 2);
        let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| busy())?;
        // The permit goes with the work: a caller that goes away does not make room before it is done.
        tokio::task::spawn_blocking(move || {
            let _running = running;
            work()
        })
        .await
        .map_err(|_| Problem::unavailable("the password could not be checked"))
    }
}

/// The working memory of the hashes that run, kept from one to the next: 19 MiB each, which the allocator would
/// otherwise keep once per thread that ever hashed.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Vec<Block>>>>);

impl Memory {
    /// Hashes with a salt of its own, to a PHC string.
    fn hash(&self, params: &Params, password: &[u8]) -> Result<String, argon2::password_hash::Error> {
        let salt = Salt::generate();
        let output = self.compute(params.clone(), password, &salt)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(params)?,
            salt: Some(salt),
            hash: Some(output),
        };
        Ok(hash.to_string())
    }

    /// Whether the password is that of a PHC string; `None` when that is no argon2id hash.
    fn verify(&self, hash: &str, password: &[u8]) -> Option<bool> {
        let hash = PasswordHash::new(hash).ok()?;
        let argon2id =
            hash.algorithm == Algorithm::Argon2id.ident() && hash.version == Some(Version::V0x13.into());
        let (salt, expected) = (hash.salt?, hash.hash?);
        let params = Params::try_from(&hash).ok().filter(|_| argon2id)?;
        // The comparison takes the same time wherever they differ.
        self.compute(params, password, &salt).ok().map(|output| output == expected)
    }

    fn compute(
        &self,
        params: Params,
        password: &[u8],
        salt: &[u8],
    ) -> Result<Output, argon2::password_hash::Error> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        blocks.resize(params.block_count(), Block::default());
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let mut out = vec![0; length];
        let computed = argon2.hash_password_into_with_memory(password, salt, &mut out, &mut blocks);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(blocks);
        computed?;
        Ok(Output::new(&out)?)
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_library() {
        use argon2::{PasswordHasher, PasswordVerifier};
        let memory = Memory::default();
        let params = Params::new(64, 2, 1, None).expect("parameters");
        let library = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let ours = memory.hash(&params, b"correct horse").expect("a hash");
        assert!(library.verify_password(b"correct horse", ours.as_str()).is_ok());
        assert!(library.verify_password(b"wrong horse", ours.as_str()).is_err());
        let theirs = library.hash_password(b"correct horse").expect("a hash").to_string();
        assert_eq!(memory.verify(&theirs, b"correct horse"), Some(true));
        assert_eq!(memory.verify(&theirs, b"wrong horse"), Some(false));
        assert_eq!(memory.verify("$argon2d$v=19$m=64,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", b"x"), None);
        assert_eq!(memory.0.lock().expect("the memory").len(), 1, "the memory is used again");
    }

    #[tokio::test]
    async fn a_password_is_checked_by_its_hash() {
        let passwords = Passwords::new(Cost::FOR_TESTS);
        let hash = passwords.hash(Secret("correct horse".into())).await.expect("a hash");
        assert!(hash.starts_with("$argon2id$"));
        let verify = |text: &str, hash: Option<&String>| passwords.verify(Secret(text.into()), hash.cloned());
        assert_eq!(verify("correct horse", Some(&hash)).await, Ok(true));
        assert_eq!(verify("wrong horse", Some(&hash)).await, Ok(false));
        assert_eq!(verify("correct horse", None).await, Ok(false));
        assert_eq!(verify("correct horse", Some(&"damaged".into())).await, Ok(false));
        assert_ne!(passwords.hash(Secret("correct horse".into())).await, Ok(hash));
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_told_to_come_back() {
        let passwords = Passwords::new(Cost::FOR_TESTS);
        let _all = passwords.waiting.acquire_many(MAX_WAITING as u32).await.expect("the queue");
        let refused = passwords.hash(Secret("x".into())).await.expect_err("a full queue");
        assert_eq!(refused.code, "rate_limited");
    }

    #[test]
    fn the_default_cost_is_the_recommended_one_and_secrets_stay_hidden() {
        assert_eq!(Cost::default(), Cost { kib: 19_456, passes: 2 });
        assert_eq!(format!("{:?}", Secret("hunter2".into())), "Secret");
    }
}
