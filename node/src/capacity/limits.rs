//! How many connections the system lets this process hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors that are not for connections of clients: the database and its readers, the mesh, the log.
const OWN: u64 = 256;
/// Of the connections, one in so many is kept for calls: who has a stream must still be able to send.
const FOR_CALLS: usize = 32;
/// Connections and streams where the system sets no bound, or a huge one.
const MOST: u64 = 1 << 20;

/// Lets the process have as many descriptors as it may, and gives the bounds that follow: with `streams`, no more
/// streams than that.
#[must_use]
pub fn of_process(streams: Option<usize>) -> Limits {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST);
    if limit.current.is_some_and(|current| current < most) {
        // Nobody minds if that is not allowed: there are just fewer.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(MOST).min(MOST);
    of_descriptors(descriptors, streams)
}

fn of_descriptors(descriptors: u64, streams: Option<usize>) -> Limits {
    // It is no more than `MOST`.
    let connections = descriptors.saturating_sub(OWN).max(16) as usize;
    let carried = connections - connections.div_ceil(FOR_CALLS);
    Limits {
        streams: streams.map_or(carried, |wanted| wanted.min(carried)),
        connections,
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_leave_room_for_calls_and_calls_for_the_node() {
        let limits = of_descriptors(20_000, None);
        assert_eq!((limits.connections, limits.streams), (19_744, 19_127));
        assert_eq!(of_descriptors(20_000, Some(100)).streams, 100);
        assert_eq!(of_descriptors(20_000, Some(1_000_000)).streams, 19_127);
        assert!(of_descriptors(10, None).streams > 0);
    }
}
