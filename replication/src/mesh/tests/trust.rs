//! Certificates and cluster keys that change while members are connected.

use super::*;

/// Our connection to a member.
fn outgoing(from: &Running, to: NodeId) -> Option<usize> {
    from.mesh.shared.peers.outgoing(to).map(|connection| connection.stable_id())
}

async fn start_short(config: MeshConfig) -> Running {
    let short = |tenths: u64| Duration::from_millis(tenths * 100);
    let lifetimes =
        tls::Lifetimes { validity: short(60), renewal: short(10), connection: short(20), review: short(2) };
    let (mesh, events) = Mesh::start_with(config, super::super::now_millis(), lifetimes).await.unwrap();
    Running { mesh, events }
}

#[tokio::test]
async fn connections_are_made_anew_before_their_certificates_end() {
    let (log, _guard) = Log::start();
    let key = ClusterKey::generate();
    let mut a = start_short(config(1, &key, &[])).await;
    let mut b = start_short(config(2, &key, &[&a])).await;
    let node = b.mesh.node();
    b.up(a.mesh.node()).await;
    let mut lasting = 0;
    // More connections than certificates last for.
    for _ in 0..5 {
        a.up(node).await;
        assert!(a.entry(node).is_some_and(|entry| entry.alive), "nobody doubts it");
        let last = outgoing(&a, node).unwrap();
        until("another connection", || outgoing(&a, node).is_some_and(|id| id != last)).await;
        a.down(node).await;
        lasting += 1;
        // One makes way for the next without a time in between.
        assert!(a.mesh.peers().iter().any(|peer| peer.node == node && peer.connected));
    }
    assert_eq!(lasting, 5);
    assert_eq!(log.lines(&["refused"]) + log.lines(&["closed a connection"]), 0, "{}", log_text(&log));
    assert_eq!(log.lines(&["member down"]), 0, "{}", log_text(&log));
}

#[tokio::test]
async fn a_member_whose_clock_was_corrected_is_let_in() {
    let key = ClusterKey::generate();
    let mut a = start(config(1, &key, &[])).await;
    for (number, days) in [(2, -30), (3, 30)] {
        // As if the clock had been set after the certificate was signed.
        a.mesh.shared.sign_at(time::OffsetDateTime::now_utc() + time::Duration::days(days)).unwrap();
        let mut other = start(config(number, &key, &[&a])).await;
        other.up(a.mesh.node()).await;
        a.up(other.mesh.node()).await;
    }
}

#[tokio::test]
async fn the_cluster_key_is_replaced_while_members_are_connected() {
    let (log, _guard) = Log::start();
    let old = ClusterKey::generate();
    let both = old.with_next().unwrap();
    let used = both.with_next_used().unwrap();
    let new = used.without_old().unwrap();
    let mut a = start(config(1, &old, &[])).await;
    let mut b = start(config(2, &old, &[&a])).await;
    // It is left behind.
    let mut c = start(config(3, &old, &[&a])).await;
    let (a_node, b_node, c_node) = (a.mesh.node(), b.mesh.node(), c.mesh.node());
    a.up(b_node).await;
    b.up(a_node).await;
    c.up(a_node).await;
    until("all alive", || a.mesh.shared.membership.up().len() == 2).await;
    for step in [&both, &used, &new] {
        let before = (outgoing(&a, b_node), outgoing(&b, a_node));
        a.mesh.rekey(step).unwrap();
        b.mesh.rekey(step).unwrap();
        if step.derive("x") != old.derive("x") && *step == used {
            until("a's new connection", || outgoing(&a, b_node).is_some_and(|id| Some(id) != before.0)).await;
            until("b's new connection", || outgoing(&b, a_node).is_some_and(|id| Some(id) != before.1)).await;
        }
        assert!(a.entry(b_node).is_some_and(|entry| entry.alive));
    }
    until("c is out", || a.mesh.peers().iter().all(|peer| peer.node != c_node) && c.mesh.peers().is_empty())
        .await;
    let port = |running: &Running| format!("peer={}", running.mesh.local_addr());
    let refusal = "the peer holds another cluster key";
    until("a's word", || log.lines(&["WARN", refusal, &port(&c)]) > 0).await;
    until("c's word", || log.lines(&["WARN", refusal, &port(&a)]) > 0).await;
    assert!(a.entry(b_node).is_some_and(|entry| entry.alive));
    assert!(outgoing(&a, b_node).is_some() && outgoing(&b, a_node).is_some());
}
