//! How many streams a process may hold.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but the streams.
const OTHERS: u64 = 128;

/// Lets this process have as many descriptors as so many streams need. Beyond the hard limit only root may go.
pub(super) fn raise(streams: u32) -> anyhow::Result<()> {
    let needed = u64::from(streams) + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let wish = Rlimit { current: Some(needed), maximum: Some(needed) };
    ensure!(
        hard >= needed
            && setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: limit.maximum }).is_ok()
            || setrlimit(Resource::Nofile, wish).is_ok(),
        "{streams} streams need {needed} file descriptors, and this process may have {hard}: raise the hard limit \
         (`ulimit -Hn`, or LimitNOFILE of a service), or run several processes with fewer --clients each"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_streams_are_refused_with_the_way_out() {
        // More than any system's own bound (`fs.nr_open`).
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let error = raise(u32::MAX).expect_err("nobody has so many").to_string();
            assert!(error.contains("ulimit -Hn") && error.contains("--clients"), "{error}");
        }
        raise(10).expect("everybody has so many");
    }
}
