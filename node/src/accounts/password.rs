//! Passwords: argon2id, on blocking threads, never more at a time than the machine has cores.

use std::{fmt, sync::Arc};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash,
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
    argon2: Argon2<'static>,
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
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody: [u8; 32] = rand::random();
        let dummy = argon2.hash_password(&nobody).map_or_else(|_| String::new(), |hash| hash.to_string());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            argon2,
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
        let argon2 = self.argon2.clone();
        self.run(move || argon2.hash_password(password.bytes()).map(|hash| hash.to_string())).await?.map_err(
            |error| {
                tracing::error!(%error, "a password could not be hashed");
                Problem::unavailable("the password could not be hashed")
            },
        )
    }

    /// Whether the password is the one of the hash; `None` is checked against nothing and takes as long.
    ///
    /// # Errors
    /// 429 when too many wait already.
    pub async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool, Problem> {
        let argon2 = self.argon2.clone();
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.to_string());
        let right = self
            .run(move || {
                PasswordHash::new(&hash)
                    .is_ok_and(|hash| argon2.verify_password(password.bytes(), &hash).is_ok())
            })
            .await?;
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

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
