//! How many connections the system lets this process hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors that are not for connections of clients: the database and its readers, the mesh, the log.
const OWN: u64 = 256;
/// Of the connections, one in so many is kept for calls: who has a stream must still be able to send.
const FOR_CALLS: usize = 32;
/// Connections and streams where the system sets no bound, or a huge one.
const MOST: u64 = 1 << 20;

/// Lets the process have as many descriptors as it may, and gives the bounds that follow for each of `nodes` nodes in it:
/// with `streams`, no more streams than that. A process that may raise its own hard limit (root may) does so if that many
/// streams need it.
#[must_use]
pub fn of_process(streams: Option<usize>, nodes: usize) -> Limits {
    let nodes = nodes.max(1) as u64;
    let needed = streams.map(|streams| needed_for(streams).saturating_mul(nodes));
    let descriptors = raise(needed);
    let limits = of_descriptors(descriptors / nodes, streams);
    if let Some(wanted) = streams
        && limits.streams < wanted
    {
        tracing::warn!(
            wanted,
            streams = limits.streams,
            descriptors,
            "fewer streams than --max-streams: the process may not have more descriptors (raise `ulimit -Hn`, or \
             LimitNOFILE of the service)"
        );
    }
    limits
}

/// Connections that a process may take which holds so many descriptors for each of them (a proxy holds two), after it has
/// let itself have as many descriptors as it may.
#[must_use]
pub fn connections_of_process(each: u64) -> usize {
    // It is no more than `MOST`.
    (raise(None).saturating_sub(OWN).max(16) / each.max(1)) as usize
}

/// Raises the limit of open files to the hard one, and beyond it to `needed` if that is allowed; gives what it is then.
fn raise(needed: Option<u64>) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(MOST);
    if let Some(needed) = needed.filter(|needed| *needed > hard) {
        let wish = Some(needed.min(MOST));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: wish, maximum: wish });
    }
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(MOST);
    if limit.current.is_some_and(|current| current < hard) {
        // Nobody minds if that is not allowed: there are just fewer.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(MOST).min(MOST)
}

/// Descriptors with which a node can hold so many streams.
fn needed_for(streams: usize) -> u64 {
    let connections = streams as u64 * FOR_CALLS as u64 / (FOR_CALLS as u64 - 1) + 2;
    connections + OWN
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

    #[test]
    fn what_is_asked_for_is_enough() {
        for streams in [1, 31, 1000, 19_127, 50_000, 999_999] {
            assert_eq!(of_descriptors(needed_for(streams), Some(streams)).streams, streams);
        }
    }

    #[test]
    fn nodes_of_one_process_share_its_descriptors() {
        let (one, three) = (of_process(None, 1), of_process(None, 3));
        assert!(three.connections * 3 <= one.connections && three.streams > 0);
        assert_eq!(of_process(Some(3), 3).streams, 3);
        assert!(connections_of_process(2) * 2 <= one.connections);
    }
}
