//! How many streams a process may hold.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but the streams.
const OTHERS: u64 = 128;

/// Lets this process have as many descriptors as so many streams need.
pub(super) fn raise(streams: u32) -> anyhow::Result<()> {
    let needed = u64::from(streams) + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or(u64::MAX);
    ensure!(
        most >= needed,
        "{streams} streams need {needed} file descriptors, and this process may have {most}: raise the hard limit \
         (`ulimit -Hn`, or LimitNOFILE of a service), or run several processes with fewer --clients each"
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_streams_are_refused_with_the_way_out() {
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = raise(u32::MAX).expect_err("nobody has so many").to_string();
            assert!(error.contains("ulimit -Hn") && error.contains("--clients"), "{error}");
        }
        raise(10).expect("everybody has so many");
    }
}
